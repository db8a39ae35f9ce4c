"""Files that the tests of tables and of the command line read."""

from pathlib import Path

import pytest
from helpers.cli_data import write_tumours


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> tuple[Path, Path]:
    """Tumours to train on, and held-out ones."""
    return write_tumours(tmp_path_factory.mktemp("tumours"))
