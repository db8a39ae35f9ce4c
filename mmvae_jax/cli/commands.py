"""The commands of ``mmvae``, and the exit codes of their errors."""

import dataclasses
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import tyro

import mmvae_jax as mm
from mmvae_jax.cli.arguments import REGISTRY
from mmvae_jax.cli.encode import Encode
from mmvae_jax.cli.evaluate import Evaluate
from mmvae_jax.cli.export import Export
from mmvae_jax.cli.info import Info
from mmvae_jax.cli.predict import Predict
from mmvae_jax.cli.suggestions import suggest
from mmvae_jax.cli.train import Train
from mmvae_jax.inputs.paths import as_path
from mmvae_jax.training.preemption import EXIT_CODE

COMMANDS = {
    "train": Train,
    "evaluate": Evaluate,
    "encode": Encode,
    "predict": Predict,
    "export": Export,
    "info": Info,
}
DESCRIPTION = (
    "Train an MMVAE, a variational autoencoder of several modalities, on arrays in files, and use "
    "it. Each command lists its options: mmvae train --help."
)
#: Exit code of ``tyro`` for words that it does not understand.
WRONG_USAGE = 2
#: Errors that other data, files or settings can fix.
USER_ERRORS = (OSError, ValueError, ImportError, mm.NonFiniteError)


def run(args: Sequence[str] | None) -> int:
    """Parses the command line, runs its command and returns the exit code, see ``main``."""
    words = sys.argv[1:] if args is None else list(args)
    try:
        command = tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="mmvae",
            description=DESCRIPTION,
            args=words,
            config=(tyro.conf.DisallowNone,),
            registry=REGISTRY,
        )
    except SystemExit as end:
        if end.code == WRONG_USAGE and (hint := suggest(words, COMMANDS)):
            print(hint, file=sys.stderr)
        raise
    _keep_programs()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("default", category=UserWarning)
            warnings.showwarning = _print_warning
            _with_paths(command).run()
    except USER_ERRORS as error:
        return _fail(f"error: {error}", 1)
    except mm.Preempted as end:
        return _fail(str(end), EXIT_CODE)
    except KeyboardInterrupt as end:
        return _fail(str(end) or "interrupted", 130)
    return 0


def _keep_programs() -> None:
    """Keeps compiled programs on disk, in the user's cache unless JAX has another place for them.

    Compilation takes longer than most commands.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(cache) / "mmvae_jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _with_paths(command: Any) -> Any:
    """Returns a command whose paths are local ones, with ``~`` as the home directory."""
    given = {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}
    paths = {name: x for name, x in given.items() if isinstance(x, Path)}
    local = {name: as_path(x, f"--{name.replace('_', '-')}") for name, x in paths.items()}
    return dataclasses.replace(command, **local)


def _print_warning(message: Warning | str, *_: object) -> None:
    """Prints a warning without its line of code."""
    print(f"warning: {message}", file=sys.stderr)


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
