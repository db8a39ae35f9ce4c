"""The command line as a module: ``python -m mmvae_jax.cli`` is ``mmvae``."""

import sys

from mmvae_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
