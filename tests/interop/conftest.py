"""Stored MultiVae models."""

import pytest
from helpers.multivae_cases import Stored


@pytest.fixture
def small() -> Stored:
    """MLPs, MultiVae's default networks."""
    return Stored("normal")


@pytest.fixture
def images() -> Stored:
    """Networks that MultiVae was given."""
    return Stored("mnist_svhn_text")


@pytest.fixture
def private() -> Stored:
    """An MMVAE+ with MultiVae's default networks."""
    return Stored("mmvaeplus")


@pytest.fixture
def clusters() -> Stored:
    """A CMVAE with MultiVae's default networks."""
    return Stored("cmvae")
