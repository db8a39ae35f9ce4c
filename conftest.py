"""Settings for every test: a CPU of four devices, no display, programs kept, strict modes."""

import os
from importlib.metadata import version
from pathlib import Path

# Read when JAX and matplotlib start, here and in every process that a test starts.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
        "--xla_backend_optimization_level=0",  # tests compile much and compute little
        # Takes two thirds off the time to compile; jaxlib 0.11 and later do not know it.
        "--xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else "",
        # Without it, a GPU adds up in another order in every run, and no test could compare bits.
        "--xla_gpu_deterministic_ops=true" if os.environ["JAX_PLATFORMS"] != "cpu" else "",
    ]
)
# Programs are compiled once for all workers, processes and later sessions.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent / ".pytest_cache" / "programs")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import doctest
from collections.abc import Iterator
from typing import Any

import jax
import pytest

import mmvae_jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture(scope="module", autouse=True)
def forget_programs() -> Iterator[None]:
    """Frees the programs of a file's tests; those that another file needs come from the disk.

    Every program takes mappings of memory, and a process can have no more than some 65,000.
    """
    yield
    jax.clear_caches()


@pytest.fixture
def x64() -> Iterator[None]:
    """Runs the test with 64-bit floats and integers as JAX's default."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def four_devices() -> None:
    """Skips the test where there are fewer; a CPU counts as four."""
    if len(jax.devices()) < 4:
        pytest.skip("needs four devices")


@pytest.fixture(scope="session")
def names_of_package() -> dict[str, Any]:
    """What the names in the examples of the package's own docstring stand for."""
    names: dict[str, Any] = {}
    for example in doctest.DocTestParser().get_examples(mmvae_jax.__doc__ or ""):
        exec(compile(example.source, "mmvae_jax", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def names_in_examples(request: pytest.FixtureRequest) -> None:
    """Lets every docstring's examples go on from those of the package, in a folder of its own."""
    if isinstance(request.node, pytest.DoctestItem):
        names = request.getfixturevalue("doctest_namespace")
        names |= request.getfixturevalue("names_of_package")
        names["folder"] = request.getfixturevalue("tmp_path")
