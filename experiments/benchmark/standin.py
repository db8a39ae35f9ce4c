"""An empty torchvision, which MultiVae imports for data sets and metrics that are not used here.

Some platforms have no torchvision that fits the installed torch.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock

MODULES = ("", ".datasets", ".datasets.utils", ".models", ".transforms", ".utils")


def stand_in_for_torchvision() -> None:
    """Makes ``import torchvision`` succeed where it is not installed."""
    if importlib.util.find_spec("torchvision") is None:
        for name in MODULES:
            module = f"torchvision{name}"
            sys.modules[module] = MagicMock(__spec__=ModuleSpec(module, None))
