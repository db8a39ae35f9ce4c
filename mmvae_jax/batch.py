"""Containers of multi-modal examples, some of whose modalities may be missing."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from mmvae_jax.config import MMVAEConfig


class Batch(flax.struct.PyTreeNode):
    """A batch of examples as a pytree, for jitted functions.

    Attributes:
      data: ``{modality: [b, *input_dim]}`` of floats, or of bytes (uint8), which stand for
        intensities and are divided by 255 on the device. A categorical modality may hold integer
        classes, ``[b, *input_dim[:-1]]``. One with a custom likelihood may hold any dict, tuple or
        other pytree of arrays ``[b, ...]``, which its encoder and likelihood receive.
      mask: ``{modality: Bool[b]}``, True where observed; None if everything is. Placeholder values
        of missing modalities never affect a result.
      weight: weight of every example in the means over examples (loss and metrics),
        ``Float[b]``; None if all weigh 1.

    >>> incomplete = mm.Batch(data, mask={"sound": np.arange(5) > 1, "text": np.ones(5, bool)})
    >>> mm.encode(model, incomplete, None, cond_mod="all", return_mean=True).shape
    (5, 1, 2)
    """

    data: Mapping[str, Any]
    mask: Mapping[str, Any] | None = None
    weight: Any = None


class MultimodalArrays(NamedTuple):
    """A data set of several modalities, in memory or in files.

    Row ``b`` of every array belongs to example ``b``. Functions of this package take a ``Batch``
    in its place, and the other way round.

    Attributes:
      data: one column ``[b, *input_dim]`` per modality: a NumPy array, in memory or mapped from a
        file, or another ``mmvae_jax.data.Column``.
      labels: class of every example, ``[b]``; None if unknown.
      mask: True where the modality was observed, ``[b]`` per modality; None if everywhere.
      weight: weight of every example in the means over examples (loss and metrics), ``[b]``
        floats; None if all weigh 1.

    >>> mm.MultimodalArrays(data, labels=np.arange(5)).data["sound"].shape
    (5, 4)
    """

    data: Mapping[str, Any]
    labels: Any = None
    mask: Mapping[str, Any] | None = None
    weight: Any = None


#: Both containers of examples; every function that takes one takes the other.
AnyBatch = Batch | MultimodalArrays


def as_batch(examples: Any) -> Batch:
    """Returns data, mask and weights of either container as a ``Batch``.

    Raises:
      ValueError: for any other type.
    """
    if isinstance(examples, MultimodalArrays):
        return Batch(dict(examples.data), examples.mask, examples.weight)
    if isinstance(examples, Batch):
        return examples
    raise ValueError(
        f"batch is a {type(examples).__name__}: give mm.Batch(data={{...}}, mask=None) or "
        "mm.MultimodalArrays(...)"
    )


def as_arrays(examples: Any) -> MultimodalArrays:
    """Returns either container as ``MultimodalArrays``; the arrays of a ``Batch`` become NumPy's.

    Raises:
      ValueError: for any other type.
    """
    if isinstance(examples, MultimodalArrays):
        return examples
    batch = as_batch(examples)
    data = {
        name: np.asarray(x) if isinstance(x, list) else jax.tree.map(np.asarray, x)
        for name, x in batch.data.items()
    }
    mask, weight = jax.tree.map(np.asarray, (batch.mask, batch.weight))
    return MultimodalArrays(data, None, mask, weight)


class Observed(NamedTuple):
    """A checked batch.

    Attributes:
      data: as given, with zeros where missing; without modalities that are missing throughout.
      mask: in the order of the config's modalities.
      weight: weight of every example; None if all weigh 1.
    """

    data: dict[str, PyTree[Shaped[Array, "b ..."]]]
    mask: Bool[Array, "m b"]
    weight: Float[Array, " b"] | None = None


def observe(config: MMVAEConfig, batch: Any, *, allow_absent: bool = False) -> Observed:
    """Checks a batch against the config and puts zeros in the place of missing data.

    Args:
      config: of the model.
      batch: examples.
      allow_absent: take modalities that ``batch.data`` does not name as missing everywhere.

    Raises:
      ValueError: naming the modality, what was expected and what came.
    """
    batch = as_batch(batch)
    required = () if allow_absent else config.modalities
    check_names("batch.data", batch.data, config, required)
    data = {name: _checked_data(config, name, batch.data[name]) for name in batch.data}
    sizes = {name: jax.tree.leaves(x)[0].shape[0] for name, x in data.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(
            f"batch.data has the numbers of examples {sizes}: give the same one to every modality"
        )
    num_examples = next(iter(sizes.values()))
    mask = _checked_masks(config, batch, num_examples)
    data = {
        name: jax.tree.map(partial(_zero_where_missing, mask[name]), data[name])
        for name in config.modalities
        if name in data
    }
    masks = jnp.stack([mask[name] for name in config.modalities])
    return Observed(data, masks, _checked_weight(batch.weight, num_examples))


def _checked_weight(weight: Any, num_examples: Any) -> Float[Array, " b"] | None:
    if weight is None:
        return None
    if jnp.shape(weight) != (num_examples,):
        raise ValueError(
            f"batch.weight has shape {jnp.shape(weight)}, expected ({num_examples},): one number "
            "per example"
        )
    return jnp.asarray(weight, jnp.promote_types(jnp.result_type(weight), jnp.float32))


def _zero_where_missing(
    mask: Bool[Array, " b"], x: Shaped[Array, "b *dim"]
) -> Shaped[Array, "b *dim"]:
    return jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros((), x.dtype))


def encoder_input(config: MMVAEConfig, name: str, x: PyTree) -> PyTree:
    """Returns the input of the modality's encoder: one-hot vectors for integer classes, else x."""
    if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.integer):
        return jax.nn.one_hot(x, config.input_dims[name][-1])
    return x


def check_names(
    field: str, given: Any, config: MMVAEConfig, required: tuple[str, ...] = ()
) -> None:
    """Raises ValueError unless ``given`` maps known modalities, all required ones among them."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{field} is a {type(given).__name__}: give a dict by modality name")
    missing = [name for name in required if name not in given]
    unknown = [name for name in given if name not in config.input_dims]
    if missing or unknown:
        raise ValueError(
            f"{field} has the modalities {sorted(given)}, the config {list(config.modalities)}: "
            f"missing {missing}, unknown {unknown}"
        )


def _checked_data(config: MMVAEConfig, name: str, x: Any) -> PyTree[Shaped[Array, "b ..."]]:
    """Returns a modality's data as arrays, bytes as intensities."""
    if _is_tree(x):
        return _checked_tree(config, name, x)
    x = jnp.asarray(x)
    _check_array(config, name, x)
    return x.astype(jnp.float32) / 255 if _is_bytes(config, name, x) else x


def _is_tree(x: Any) -> bool:
    """Returns True for a pytree of several arrays; a list stands for one array."""
    return not isinstance(x, list) and not jax.tree_util.all_leaves([x])


def _checked_tree(config: MMVAEConfig, name: str, x: Any) -> PyTree[Shaped[Array, "b ..."]]:
    if isinstance(config.likelihood(name)[0], str):
        raise ValueError(
            f"batch.data[{name!r}] is a {type(x).__name__}, expected an array: several arrays need "
            f"an encoder of their own, and mm.Likelihood(...) in decoders_dist[{name!r}]"
        )
    arrays = jax.tree.map(jnp.asarray, x)
    shapes = [a.shape for a in jax.tree.leaves(arrays)]
    if not all(shapes) or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(
            f"batch.data[{name!r}] has arrays of the shapes {shapes}: give each the examples as "
            "its first axis"
        )
    return arrays


def _check_array(config: MMVAEConfig, name: str, x: Array) -> None:
    dim = config.input_dims[name]
    is_categorical = config.likelihood(name)[0] == "categorical"
    is_float = jnp.issubdtype(x.dtype, jnp.floating) or _is_bytes(config, name, x)
    if not is_float and not (is_categorical and jnp.issubdtype(x.dtype, jnp.integer)):
        raise ValueError(
            f"batch.data[{name!r}] has dtype {x.dtype}, expected a floating type, or uint8 for "
            "intensities from 0 to 255: convert it"
        )
    expected = dim if is_float else dim[:-1]
    if x.ndim == 0 or x.shape[1:] != expected:
        raise ValueError(
            f"batch.data[{name!r}] has shape {x.shape}, expected "
            f"{('b', *expected)}: input_dims[{name!r}] is {dim}, channels last"
        )


def _is_bytes(config: MMVAEConfig, name: str, x: Array) -> bool:
    """Returns True for bytes that are intensities; those of a categorical modality are classes."""
    return x.dtype == jnp.uint8 and config.likelihood(name)[0] != "categorical"


def _checked_masks(
    config: MMVAEConfig,
    batch: Batch,
    num_examples: Any,  # an integer, or the symbol of an exported program's open batch size
) -> dict[str, Bool[Array, " b"]]:
    """Returns the mask of every modality, in the config's order."""
    mask = dict.fromkeys(batch.data, jnp.ones(num_examples, bool))
    if batch.mask is not None:
        check_names("batch.mask", batch.mask, config, tuple(batch.data))
        mask = {name: jnp.asarray(given) for name, given in batch.mask.items()}
    for name, given in mask.items():
        if given.dtype != bool:
            raise ValueError(
                f"batch.mask[{name!r}] has dtype {given.dtype}, expected bool, True where "
                "observed: compare it first (mask > 0.5)"
            )
        if given.shape != (num_examples,):
            raise ValueError(
                f"batch.mask[{name!r}] has shape {given.shape}, expected ({num_examples},): "
                "one value per example"
            )
        if name not in batch.data and not isinstance(given, Tracer) and given.any():
            raise ValueError(
                f"batch.mask[{name!r}] says that {name!r} is observed, but batch.data lacks it: "
                f"add batch.data[{name!r}]"
            )
    absent = jnp.zeros(num_examples, bool)
    return {
        name: jnp.asarray(mask[name]) if name in batch.data else absent
        for name in config.modalities
    }
