"""The arrays of a model by path, such as ``encoders.image.hidden.0.kernel``."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from mmvae_jax.model import MMVAE


def split_model(model: MMVAE) -> tuple[dict[str, Any], Callable[[Mapping[str, Any]], MMVAE]]:
    """Returns a model's arrays by path, and a function from such arrays to a model that has them.

    Tied arrays have one path. The state of random streams, a few numbers, stays in the function:
    it holds PRNG keys, which files cannot.

    Raises:
      ValueError: if two arrays have the same path.
    """
    graphdef, *states = nnx.split(model, nnx.RngState, ...)
    streams, arrays = map(nnx.to_pure_dict, states)
    leaves, treedef = jax.tree.flatten_with_path(arrays)
    paths = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    if repeated := sorted({path for path in paths if paths.count(path) > 1}):
        raise ValueError(f"the model has several arrays {repeated[0]!r}: rename a modality")

    def merge(named: Mapping[str, Any]) -> MMVAE:
        arrays = jax.tree.unflatten(treedef, [named[path] for path in paths])
        return nnx.merge(graphdef, streams, arrays, copy=True)

    return dict(zip(paths, (x for _, x in leaves), strict=True)), merge
