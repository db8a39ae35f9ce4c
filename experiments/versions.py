"""Versions of installed packages, read without importing the packages."""

import importlib.metadata


def version(package: str) -> str:
    """Returns the installed version, or a remark if the package is used from its sources."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed: run from its sources"
