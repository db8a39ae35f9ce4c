"""Settings for every test: several CPU devices, no display, and JAX's strict modes."""

import os

# Read when JAX and matplotlib start, here and in every process that a test starts.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    " --xla_backend_optimization_level=0"  # tests compile much and compute little
)

from collections.abc import Iterator

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture(scope="module", autouse=True)
def forget_programs() -> Iterator[None]:
    """Lets go of what a file's tests have compiled.

    Every program takes mappings of memory, of which a process can have no more than some 65,000.
    """
    yield
    jax.clear_caches()


@pytest.fixture
def x64() -> Iterator[None]:
    """Runs the test with 64-bit floats and integers as JAX's default."""
    with jax.enable_x64(True):
        yield
