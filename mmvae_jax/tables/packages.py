"""Packages that only some formats need: found by name, and imported when they are used."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def library(x: Any) -> str:
    """Returns the name of the package that defines an object's type."""
    return type(x).__module__.partition(".")[0]


def import_for(place: str, package: str, extra: str) -> Any:
    """Imports a package of an extra.

    Args:
      place: name of the data that need it, for the error.
      package: name of the module to import.
      extra: extra of ``mmvae_jax`` that installs it.

    Raises:
      ImportError: if it is missing, with the command that installs it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"reading {place} needs {package}: pip install 'mmvae_jax[{extra}]'"
        ) from error


@contextmanager
def damage_named(place: str) -> Iterator[None]:
    """Turns any error of a file's library into a ValueError that names the file and the reason."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # the libraries share no base class of their errors
        reason = str(error).strip() or type(error).__name__
        raise ValueError(f"{place} cannot be read: {reason}") from error
