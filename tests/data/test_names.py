"""Names of the room of data: each is one thing, wherever it is imported from."""

import importlib
import inspect
import subprocess
import sys

import mmvae_jax as mm


def test_loaders_are_functions_whatever_is_imported_first():
    for name in ("cub", "fashion_mnist", "mnist", "mnist_svhn", "polydigits", "polymnist", "svhn"):
        module = "mnist" if name == "fashion_mnist" else name
        importlib.import_module(f"mmvae_jax.data.datasets.{module}")
        assert inspect.isfunction(getattr(mm.data, name))


def test_every_public_name_is_documented():
    assert all(getattr(mm.data, name).__doc__ for name in mm.data.__all__)


def test_importing_the_package_leaves_dear_packages_alone():
    program = "import sys, mmvae_jax as mm; mm.data.mnist; mm.networks.Conv; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    dear = {
        "PIL", "anndata", "h5py", "matplotlib", "mudata", "pandas", "polars", "pooch", "pyarrow",
        "scipy.io", "sklearn",
    }  # fmt: skip
    assert not dear & set(ended.stdout.decode().split())
