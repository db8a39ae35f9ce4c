"""A hashable mapping, for configs that are static under ``jax.jit``."""

from collections.abc import Mapping
from typing import Any


class FrozenDict(Mapping[str, Any]):
    """A hashable mapping whose order matters in comparisons: it is the order of the experts."""

    def __init__(self, items: Mapping[str, Any]):
        self._items = dict(items)

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __iter__(self):
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(self._items)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FrozenDict):
            return tuple(self.items()) == tuple(other.items())
        return isinstance(other, Mapping) and self._items == dict(other)

    def __hash__(self) -> int:
        return hash(tuple(self.items()))
