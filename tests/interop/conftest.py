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
