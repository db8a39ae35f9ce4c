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
from mmvae_jax.inputs.array_likes import as_array, as_column, map_modalities
from mmvae_jax.inputs.masks import observed_rows, over_axes
from mmvae_jax.inputs.model_inputs import checked_arrays, converted
from mmvae_jax.inputs.value_checks import check_values
from mmvae_jax.likelihood_settings import MixedLikelihood, columns_of, likelihood_of
from mmvae_jax.maths.likelihoods import Incomplete


class Batch(flax.struct.PyTreeNode):
    """A batch of examples as a pytree, for jitted functions.

    Attributes:
      data: ``{modality: [b, *input_dim]}`` of floats or booleans, or of bytes (uint8), which stand
        for intensities and are divided by 255 on the device. A categorical modality may hold
        integer classes, ``[b, *input_dim[:-1]]``, one of counts integers of any type. One with a
        custom likelihood may hold integers, and any dict, tuple or other pytree of arrays
        ``[b, ...]``. Frames, lists, tensors and columns in files become arrays, by position.
      mask: ``{modality: Bool[b]}``, True where observed; None if everything is. A mask of the
        data's shape, ``Bool[b, *input_dim]``, is for single entries (of a categorical
        ``Bool[b, *input_dim[:-1]]``): they drop out of the likelihood, and the encoder sees zeros.
        Placeholder values of what is missing never affect a result.
      weight: weight of every example in the means over examples (loss and metrics),
        ``Float[b]``; None if all weigh 1.

    >>> incomplete = mm.Batch(data, mask={"sound": np.arange(5) > 1, "text": np.ones(5, bool)})
    >>> mm.encode(model, incomplete, None, cond_mod="all", return_mean=True).shape
    (5, 1, 2)
    """

    data: Mapping[str, Any]
    mask: Mapping[str, Any] | None = None
    weight: Any = None

    def __post_init__(self) -> None:
        # Before ``jax.jit`` sees the arrays: it refuses those of other libraries.
        for field in ("data", "mask"):
            arrays = map_modalities(as_array, f"batch.{field}", getattr(self, field))
            object.__setattr__(self, field, arrays)
        object.__setattr__(self, "weight", as_array("batch.weight", self.weight))


class MultimodalArrays(NamedTuple):
    """A data set of several modalities, in memory or in files.

    Row ``b`` of every array belongs to example ``b``. Functions of this package take a ``Batch``
    in its place, and the other way round.

    Attributes:
      data: one column ``[b, *input_dim]`` per modality: a NumPy array, in memory or mapped from a
        file, another ``mmvae_jax.data.Column``, a pytree of these for a custom likelihood, or any
        array-like that ``Batch`` takes.
      labels: class of every example, ``[b]``; None if unknown.
      mask: True where the modality was observed, ``[b]`` or of the data's shape per modality, as in
        ``Batch``; None if everywhere.
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
        data = examples.data
        data = dict(data) if isinstance(data, Mapping) else data
        return Batch(data, examples.mask, examples.weight)
    if isinstance(examples, Batch):
        return examples
    raise ValueError(
        f"batch is a {type(examples).__name__}: give mm.Batch(data={{...}}, mask=None) or "
        "mm.MultimodalArrays(...)"
    )


def as_arrays(examples: Any) -> MultimodalArrays:
    """Returns either container as ``MultimodalArrays`` of columns, without array-likes.

    The arrays of a ``Batch`` become NumPy's.

    Raises:
      ValueError: for any other type, and array-likes that no device can hold.
    """
    if isinstance(examples, MultimodalArrays):
        data, labels, mask, weight = examples
        return MultimodalArrays(
            map_modalities(as_column, "data", data),
            as_array("labels", labels),
            map_modalities(as_array, "mask", mask),
            as_array("weight", weight),
        )
    batch = as_batch(examples)
    # By name, because jax.tree.map would sort the modalities.
    data = {name: jax.tree.map(np.asarray, x) for name, x in batch.data.items()}
    mask, weight = jax.tree.map(np.asarray, (batch.mask, batch.weight))
    return MultimodalArrays(data, None, mask, weight)


class Observed(NamedTuple):
    """A checked batch.

    Attributes:
      data: as given, with zeros where missing, and ``Incomplete`` where single entries may be;
        without modalities that are missing throughout.
      mask: in the order of the config's modalities.
      weight: weight of every example; None if all weigh 1.
    """

    data: dict[str, PyTree[Shaped[Array, "b ..."]]]
    mask: Bool[Array, "m b"]
    weight: Float[Array, " b"] | None = None

    def weights(self, dtype: Any) -> Float[Array, " b"]:
        """Returns the weight of every example, 0 where nothing is observed."""
        is_observed = self.mask.any(0).astype(dtype)
        return is_observed if self.weight is None else is_observed * self.weight.astype(dtype)


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
    arrays, num_examples = checked_arrays(config, batch.data)
    mask = _checked_masks(config, batch, num_examples)
    check_values(config, batch)
    data = converted(config, arrays)
    data = {
        name: _with_zeros(config, name, mask[name], data[name])
        for name in config.modalities
        if name in data
    }
    masks = jnp.stack([observed_rows(mask[name]) for name in config.modalities])
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


def _with_zeros(
    config: MMVAEConfig, name: str, mask: Bool[Array, "b *entries"], data: PyTree
) -> PyTree:
    """Returns a modality's data with zeros where they are missing, as ``Observed`` has them."""
    zeroed = jax.tree.map(partial(_zero_where_missing, mask), data)
    if mask.ndim == 1:
        return zeroed
    setting, _ = config.likelihood(name)
    if not isinstance(setting, MixedLikelihood):
        return Incomplete(zeroed, mask)
    parts = [
        mask[..., part].all(-1, keepdims=True) if likelihood == "categorical" else mask[..., part]
        for likelihood, part in columns_of(setting)
    ]
    return Incomplete(zeroed, jnp.concatenate(parts, -1))


def _zero_where_missing(
    mask: Bool[Array, "b *entries"], x: Shaped[Array, "b *dim"]
) -> Shaped[Array, "b *dim"]:
    return jnp.where(over_axes(mask, x.ndim), x, jnp.zeros((), x.dtype))


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


def _entry_mask(
    config: MMVAEConfig, name: str, mask: Bool[Array, "..."], num_examples: Any
) -> Bool[Array, "b *entries"]:
    """Returns a checked mask of single entries, of a categorical without the last axis."""
    dim, (likelihood, _) = config.input_dims[name], config.likelihood(name)
    is_categorical = likelihood == "categorical"
    shapes = [(num_examples, *dim)] + [(num_examples, *dim[:-1])] * is_categorical
    if mask.shape not in shapes:
        raise ValueError(
            f"batch.mask[{name!r}] has shape {mask.shape}, expected ({num_examples},), one value "
            f"per example, or {shapes[-1]}, one per entry"
        )
    if isinstance(likelihood, MixedLikelihood) and len(dim) > 1:
        raise ValueError(
            f"batch.mask[{name!r}] has shape {mask.shape}, but a MixedLikelihood of several axes "
            "takes no masks of entries: give one value per example"
        )
    if likelihood_of(likelihood).entry_log_prob is None:
        raise ValueError(
            f"batch.mask[{name!r}] has shape {mask.shape}, but the custom likelihood of {name!r} "
            "has no entries: give one value per example, or mm.Likelihood(..., entry_log_prob=)"
        )
    return mask.all(-1) if is_categorical and mask.shape == shapes[0] else mask


def _checked_masks(
    config: MMVAEConfig,
    batch: Batch,
    num_examples: Any,  # an integer, or the symbol of an exported program's open batch size
) -> dict[str, Bool[Array, "b *entries"]]:
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
            mask[name] = _entry_mask(config, name, given, num_examples)
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
