"""Conversion of a modality's arrays to the input of its encoder and likelihood.

One rule serves every entry: batches in training and evaluation, ``model.experts``, the functions of
inference, likelihoods and metrics.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from mmvae_jax.config import MMVAEConfig
from mmvae_jax.inputs.array_likes import as_array, map_arrays
from mmvae_jax.likelihood_settings import columns_of
from mmvae_jax.maths.likelihoods import SUPPORTS

#: Likelihoods under which bytes stand for intensities, and other integers are refused.
OF_INTENSITIES = ("normal", "laplace", "bernoulli")


def model_inputs(
    config: MMVAEConfig, data: Mapping[str, Any]
) -> dict[str, PyTree[Shaped[Array, "b ..."]]]:
    """Returns the data of each modality as its likelihood takes them.

    Floats have JAX's default type or a wider one: single precision, or double precision with
    ``jax_enable_x64``. Booleans are zeros and ones, bytes of a modality with two or more axes
    intensities from 0 to 1 under normal, laplace and bernoulli. Integers are counts under a
    likelihood of counts; classes of a categorical likelihood, or one-hot vectors if they have all
    axes; under a custom likelihood they stay integers.

    Raises:
      ValueError: naming the modality, what was expected and what came.
    """
    return converted(config, checked_arrays(config, data)[0])


def converted(
    config: MMVAEConfig, arrays: Mapping[str, Any]
) -> dict[str, PyTree[Shaped[Array, "b ..."]]]:
    """Returns the arrays of ``checked_arrays`` as ``model_inputs`` does."""
    return {
        name: jax.tree.map(lambda x, name=name: _converted(config, name, jnp.asarray(x)), tree)
        for name, tree in arrays.items()
    }


def checked_arrays(config: MMVAEConfig, data: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """Returns arrays of the right types and shapes, not converted yet, and the number of examples.

    The number is symbolic in a program that is exported for any batch size.

    Raises:
      ValueError: as ``model_inputs``.
    """
    arrays = {name: map_arrays(_checked_array, field_of(name), x) for name, x in data.items()}
    for name, tree in arrays.items():
        check = _check_array if jax.tree_util.all_leaves([tree]) else _check_tree
        check(config, name, tree)
    sizes = {name: jax.tree.leaves(tree)[0].shape[0] for name, tree in arrays.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(
            f"batch.data has the numbers of examples {sizes}: give the same one to every modality"
        )
    return arrays, next(iter(sizes.values()))


def field_of(name: str) -> str:
    """Returns the name of a modality's data, for errors."""
    return f"batch.data[{name!r}]"


def encoder_input(
    config: MMVAEConfig, name: str, x: PyTree, observed: Bool[Array, "b *entries"] | None = None
) -> PyTree:
    """Returns the input of the modality's encoder.

    Integer classes become one-hot vectors, zeros where ``observed`` is False. Counts become
    ``log(1 + x)``, as they may differ by orders of magnitude.
    """
    setting, _ = config.likelihood(name)
    if setting == "categorical" and jnp.issubdtype(x.dtype, jnp.integer):
        one_hot = jax.nn.one_hot(x, config.input_dims[name][-1])
        return one_hot if observed is None else one_hot * observed[..., None]
    columns = columns_of(setting)
    if not any(SUPPORTS[likelihood].is_count for likelihood, _ in columns):
        return x
    parts = [
        jnp.log1p(x[..., part]) if SUPPORTS[likelihood].is_count else x[..., part]
        for likelihood, part in columns
    ]
    return jnp.concatenate(parts, -1)


def are_intensities(config: MMVAEConfig, name: str, dtype: Any) -> bool:
    """Returns True for bytes that stand for intensities."""
    return dtype == jnp.uint8 and config.likelihood(name)[0] in OF_INTENSITIES


def as_default_float(x: Float[Array, "*shape"] | Bool[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns x in JAX's default float type, or a wider one: half precision costs digits."""
    return x.astype(jnp.promote_types(x.dtype, jnp.result_type(float)))


def _checked_array(field: str, x: Any) -> Any:
    array = as_array(field, x)
    if isinstance(array, bool | int | float):
        return np.asarray(array)
    if not hasattr(array, "dtype"):
        raise ValueError(f"{field} is a {type(x).__name__}: give an array")
    return array


def _check_tree(config: MMVAEConfig, name: str, arrays: Any) -> None:
    """Checks a modality that is several arrays."""
    if isinstance(config.likelihood(name)[0], str):
        raise ValueError(
            f"{field_of(name)} is a {type(arrays).__name__}, expected an array: several arrays "
            f"need a custom encoder, and mm.Likelihood(...) in decoders_dist[{name!r}]"
        )
    shapes = [a.shape for a in jax.tree.leaves(arrays)]
    if not shapes or not all(shapes) or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(
            f"{field_of(name)} has arrays of the shapes {shapes}: give each the examples as "
            "its first axis"
        )


def _converted(config: MMVAEConfig, name: str, x: Array) -> Array:
    """Returns a checked array in the type that its likelihood takes."""
    likelihood, _ = config.likelihood(name)
    if are_intensities(config, name, x.dtype):
        return as_default_float(x.astype(jnp.float32)) / 255
    if jnp.issubdtype(x.dtype, jnp.floating):
        return as_default_float(x)
    if likelihood == "categorical" and x.ndim == len(config.input_dims[name]):
        return x.astype(jnp.int32)
    if x.dtype == bool or columns_of(likelihood):
        return x.astype(jnp.result_type(float))
    # Arithmetic of narrow integers would wrap around.
    return x.astype(jnp.promote_types(x.dtype, jnp.int32)) if x.dtype.itemsize < 4 else x


def _check_array(config: MMVAEConfig, name: str, x: Any) -> None:
    """Checks type and shape of a modality that is one array."""
    dim, (likelihood, _) = config.input_dims[name], config.likelihood(name)
    field = field_of(name)
    is_float = jnp.issubdtype(x.dtype, jnp.floating) or x.dtype == bool
    is_integer = jnp.issubdtype(x.dtype, jnp.integer)
    takes_integers = likelihood not in OF_INTENSITIES
    if not is_float and not (is_integer and (takes_integers or x.dtype == jnp.uint8)):
        raise ValueError(
            f"{field} has dtype {x.dtype}, expected a floating type, or uint8 for intensities from "
            "0 to 255: convert it"
        )
    if are_intensities(config, name, x.dtype) and len(dim) == 1:
        raise ValueError(
            f"{field} is uint8 of one axis, expected a floating type: give x / np.float32(255) "
            "for intensities, and x.astype(np.float32) for numbers"
        )
    are_classes = likelihood == "categorical" and not jnp.issubdtype(x.dtype, jnp.floating)
    expected = dim[:-1] if are_classes and x.ndim != len(dim) + 1 else dim
    if x.ndim == 0 or x.shape[1:] != expected:
        raise ValueError(
            f"{field} has shape {x.shape}, expected {('b', *expected)}: input_dims[{name!r}] is "
            f"{dim}, channels last{_HINT if likelihood == 'categorical' else ''}"
        )


_HINT = "; classes without the last axis are integers"
