"""Entry point of every program here: settings from flags, user errors as one-line messages."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import tyro

#: Errors that other settings, files or installed packages can fix.
USER_ERRORS = (ImportError, OSError, ValueError, FloatingPointError)


def run_command(
    main: Callable[[Any], object],
    settings: type | Mapping[str, tuple[str, Any]],
    module: str,
) -> None:
    """Runs a program with settings from the command line.

    Args:
      main: the program, a function of its settings.
      settings: dataclass of the settings; or presets, which become subcommands: description and
        settings by name.
      module: name of the module that users start with ``python -m``.

    Raises:
      SystemExit: with a message instead of a traceback if ``main`` raises one of ``USER_ERRORS``.
    """
    prog = f"python -m {module}"
    if isinstance(settings, type):
        config = tyro.cli(settings, prog=prog)
    else:
        config = tyro.extras.overridable_config_cli(dict(settings), prog=prog)
    try:
        main(config)
    except USER_ERRORS as error:
        sys.exit(f"error: {error}")
