"""A saved model that several files of tests load."""

import shutil
from pathlib import Path

import pytest
from helpers.saved_models import small_model

import mmvae_jax as mm


@pytest.fixture(scope="package")
def model() -> mm.MMVAE:
    """A model whose networks are not the default."""
    return small_model()


@pytest.fixture(scope="package")
def folder(model, tmp_path_factory) -> Path:
    return mm.save_pretrained(model, tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """A copy of ``folder``, to damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))
