"""The command line ``mmvae``: trains a model on arrays in files, and uses it."""

import sys
from collections.abc import Sequence

from mmvae_jax import __version__

#: Packages of the extra ``experiments`` that the commands import.
EXTRAS = ("matplotlib", "tyro")


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    0: done. 1: data or run are wrong, and stderr says how. 2, as SystemExit: wrong usage.
    75: preempted by SIGTERM, with everything saved. 130: interrupted from the keyboard.

    ``mmvae --version`` prints the version.

    Args:
      args: words after ``mmvae``; by default the arguments of the process.
    """
    if list(sys.argv[1:] if args is None else args) == ["--version"]:
        print(f"mmvae {__version__}")
        return 0
    try:
        from mmvae_jax.cli.commands import run
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        message = f"error: mmvae needs {error.name}: pip install 'mmvae_jax[experiments]'"
        print(message, file=sys.stderr)
        return 1
    return run(args)
