"""Versions of installed packages; imports none of them."""

import importlib.metadata


def version(package: str) -> str:
    """As installed, or a remark that the package runs from its sources."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed: run from its sources"
