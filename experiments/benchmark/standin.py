"""An empty torchvision for MultiVae to import.

MultiVae imports torchvision for its datasets, trainers and metrics, none of which is used here. On
some platforms there is no torchvision that fits the installed torch.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence

NAME = "torchvision"


class Empty(types.ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torchvision and everything in it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A spec for torchvision and what is below it."""
        if fullname.partition(".")[0] != NAME:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Empty:
        """An empty one."""
        return Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing is to be run."""


def stand_in_for_torchvision() -> None:
    """Let ``import torchvision`` succeed where it is not installed."""
    if importlib.util.find_spec(NAME) is None:
        sys.meta_path.append(Finder())
