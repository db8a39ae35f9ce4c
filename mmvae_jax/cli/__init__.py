"""The command line ``mmvae``: train a model on arrays in files, and use it."""

import sys
from collections.abc import Sequence

#: What the command line needs besides the package's own dependencies.
EXTRAS = ("matplotlib", "tyro")


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: done. 1: the data or the run are wrong, and stderr says how. 2, as SystemExit: the command
    line itself is wrong. 75: preempted by SIGTERM, with everything saved. 130: interrupted from the
    keyboard.

    Args:
      args: what follows ``mmvae``; by default what the process was started with.
    """
    try:
        from mmvae_jax.cli.commands import run
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        message = f"error: mmvae needs {error.name}: pip install 'mmvae_jax[experiments]'"
        print(message, file=sys.stderr)
        return 1
    return run(args)
