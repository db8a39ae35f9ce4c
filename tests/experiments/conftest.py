"""Small files of data sets that several experiments read."""

from pathlib import Path

import pytest
from helpers.official_files import write_mnist


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """Folder of data sets with MNIST only."""
    folder = tmp_path_factory.mktemp("data")
    write_mnist(folder / "mnist")
    return folder
