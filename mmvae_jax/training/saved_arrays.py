"""The arrays of a train state as checkpoints hold them: in two parts, PRNG keys as their bits."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from mmvae_jax.saving.files import differences
from mmvae_jax.training.train_state import TrainState

#: Fields of a ``TrainState`` by the part of a saved step that holds them.
PARTS = {"model": ("params", "rest"), "run": ("step", "opt_state", "key")}


def split_state(state: TrainState) -> dict[str, PyTree]:
    """Returns the arrays of each part."""
    return {part: without_keys(_fields(state, part)) for part in PARTS}


def merge_state(state: TrainState, parts: Mapping[str, PyTree]) -> TrainState:
    """Returns ``state`` with the arrays of ``parts``."""
    fields = {}
    for part, arrays in parts.items():
        fields |= with_keys(_fields(state, part), arrays)
    return dataclasses.replace(state, **fields)


def without_keys(tree: PyTree) -> PyTree:
    """Replaces PRNG keys, which files cannot hold, by their bits."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def with_keys(like: PyTree, tree: PyTree) -> PyTree:
    """Replaces bits by PRNG keys wherever ``like`` has a key, of the same implementation."""

    def restore(like: jax.Array, x: jax.Array) -> jax.Array:
        if not _is_key(like):
            return x
        return jax.random.wrap_key_data(x, impl=jax.random.key_impl(like))

    return jax.tree.map(restore, like, tree)


def array_differences(saved: Mapping[str, Any], expected: Mapping[str, PyTree]) -> list[str]:
    """Returns a line for every array whose name, shape or type differs.

    Args:
      saved: orbax's metadata of each part.
      expected: arrays, or their shapes and types, of the same parts.
    """
    there = {x.name: _describe(x) for part in expected for x in jax.tree.leaves(saved[part].tree)}
    here = {
        jax.tree_util.keystr(path, simple=True, separator="."): _describe(x)
        for tree in expected.values()
        for path, x in jax.tree.leaves_with_path(tree)
    }
    return differences(there, here)


def _fields(state: TrainState, part: str) -> dict[str, PyTree]:
    return {name: getattr(state, name) for name in PARTS[part]}


def _is_key(x: jax.Array | np.ndarray | np.generic) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _describe(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}"
