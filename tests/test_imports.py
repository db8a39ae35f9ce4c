"""Which way imports go."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mmvae_jax"

# Loads one module of the package without running the package's __init__, which loads all of it.
LOAD = """
import importlib, sys, types
package = types.ModuleType("mmvae_jax")
package.__path__ = [sys.argv[1]]
sys.modules["mmvae_jax"] = package
importlib.import_module("mmvae_jax." + sys.argv[2])
print(*sys.modules)
"""


MATHS = [f"maths.{file.stem}" for file in sorted((PACKAGE / "maths").glob("[a-z]*.py"))]


@pytest.mark.parametrize("module", MATHS)
def test_maths_needs_no_flax(module):
    command = [sys.executable, "-c", LOAD, str(PACKAGE), module]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert f"mmvae_jax.{module}" in loaded
    assert not {"flax", "optax", "orbax", "grain"} & set(loaded)


def test_public_names_exist():
    import mmvae_jax

    for name in mmvae_jax.__all__:
        assert getattr(mmvae_jax, name).__doc__
