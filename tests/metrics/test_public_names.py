"""Public names of the metrics, and the libraries that they bring along."""

import subprocess
import sys

import pytest

import mmvae_jax.metrics

CODE = "import sys, mmvae_jax.metrics; print(*sys.modules)"


def test_public_names_are_documented():
    for name in mmvae_jax.metrics.__all__:
        assert getattr(mmvae_jax.metrics, name).__doc__


@pytest.mark.slow
def test_optional_libraries_are_not_imported():
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert not {"matplotlib", "sklearn", "torch"} & set(run.stdout.split())
