"""Versions of installed packages, read without importing the packages."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def version(package: str) -> str:
    """Returns the installed version, or a remark if the package is used from its sources."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed: run from its sources"


def is_installed(package: str) -> bool:
    """Returns if the package is installed, not only on the path."""
    return bool(list(importlib.metadata.distributions(name=package)))


def versions(*packages: str) -> dict[str, str]:
    """Returns the versions of packages, and of Python."""
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


def git(*arguments: str) -> str:
    """Returns what git prints in this repository; nothing if git fails."""
    command = ["git", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
