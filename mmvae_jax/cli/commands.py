"""Which commands there are, and what becomes of their errors."""

import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import tyro

import mmvae_jax as mm
from mmvae_jax.cli.evaluate import Evaluate
from mmvae_jax.cli.export import Export
from mmvae_jax.cli.info import Info
from mmvae_jax.cli.predict import Predict
from mmvae_jax.cli.train import Train
from mmvae_jax.training.preemption import EXIT_CODE

Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Info, tyro.conf.subcommand("info")]
)

DESCRIPTION = (
    "Train an MMVAE, a variational autoencoder of several modalities, on arrays of your own, and "
    "use it. Each command explains itself: mmvae train --help."
)
#: What a user's data, files or settings can lead to, and can mend.
EXPECTED = (OSError, ValueError, ImportError, mm.NonFiniteError)


def run(args: Sequence[str] | None) -> int:
    """Parse the command line, run its command and return the exit code, see ``main``."""
    command = tyro.cli(
        Command,
        prog="mmvae",
        description=DESCRIPTION,
        args=args,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
    )
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say
            command.run()
    except EXPECTED as error:
        return _failed(f"error: {error}", 1)
    except mm.Preempted as end:
        return _failed(str(end), EXIT_CODE)
    except KeyboardInterrupt:
        return _failed("interrupted", 130)
    return 0


def _say(message: Warning | str, *_: object) -> None:
    """Shows a warning without the line of code that it comes from."""
    print(f"warning: {message}", file=sys.stderr)


def _failed(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
