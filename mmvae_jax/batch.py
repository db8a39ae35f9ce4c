"""A batch of multi-modal examples, some of whose modalities may be missing."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Shaped

from mmvae_jax.config import MMVAEConfig


@flax.struct.dataclass
class Batch:
    """Data by modality and what of it is observed; a pytree.

    Attributes:
      data: ``{modality: [b, *input_dim]}`` of floats. A categorical modality may hold integer
        classes, ``[b, *input_dim[:-1]]``.
      mask: ``{modality: Bool[b]}``, True where observed; None when everything is. What stands in
        a missing place is never looked at.
    """

    data: Mapping[str, Any]
    mask: Mapping[str, Any] | None = None


class Observed(NamedTuple):
    """A checked batch.

    Attributes:
      data: as given, with zeros where missing.
      mask: in the order of the config's modalities.
    """

    data: dict[str, Shaped[Array, "b ..."]]
    mask: Bool[Array, "m b"]


def observe(config: MMVAEConfig, batch: Batch) -> Observed:
    """Check a batch against the config and put zeros where it is missing.

    Raises:
      ValueError: naming the modality, what was expected and what came.
    """
    if not isinstance(batch, Batch):
        raise ValueError(f"batch is a {type(batch).__name__}: give mm.Batch(data={{...}}, mask=None)")
    _check_names("batch.data", batch.data, config)
    data = {name: jnp.asarray(batch.data[name]) for name in config.modalities}
    for name, x in data.items():
        _check_array(config, name, x)
    sizes = {name: x.shape[0] for name, x in data.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"batch.data has different numbers of examples, {sizes}: make them equal")
    mask = _checked_mask(config, batch.mask, next(iter(sizes.values())))
    kept = {name: _where(mask[m], x, 0) for m, (name, x) in enumerate(data.items())}
    return Observed(kept, mask)


def _where(mask: Bool[Array, " b"], x: Shaped[Array, "b *dim"], filler) -> Shaped[Array, "b *dim"]:
    return jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.asarray(filler, x.dtype))


def encoder_input(config: MMVAEConfig, name: str, x: Array) -> Array:
    """What the modality's encoder sees: integer classes as one-hot vectors, the rest as it is."""
    if jnp.issubdtype(x.dtype, jnp.integer):
        return jax.nn.one_hot(x, config.input_dims[name][-1])
    return x


def _check_names(field: str, given: Mapping[str, Any], config: MMVAEConfig) -> None:
    if not isinstance(given, Mapping):
        raise ValueError(f"{field} is a {type(given).__name__}: give a dict by modality name")
    missing = [name for name in config.modalities if name not in given]
    extra = [name for name in given if name not in config.input_dims]
    if missing or extra:
        raise ValueError(
            f"{field} has the modalities {sorted(given)}, the config {list(config.modalities)}: "
            f"missing {missing}, unknown {extra}"
        )


def _check_array(config: MMVAEConfig, name: str, x: Array) -> None:
    dim = config.input_dims[name]
    assert config.decoders_dist is not None
    is_categorical = config.decoders_dist[name] == "categorical"
    is_float = jnp.issubdtype(x.dtype, jnp.floating)
    if not is_float and not (is_categorical and jnp.issubdtype(x.dtype, jnp.integer)):
        raise ValueError(
            f"batch.data[{name!r}] has dtype {x.dtype}, expected a floating type: convert it"
            " (images of bytes: x.astype('float32') / 255)"
        )
    expected = dim if is_float else dim[:-1]
    if x.ndim == 0 or x.shape[1:] != expected:
        raise ValueError(
            f"batch.data[{name!r}] has shape {x.shape}, expected "
            f"{('b', *expected)}: input_dims[{name!r}] is {dim}, channels last"
        )


def _checked_mask(config: MMVAEConfig, mask: Any, num_examples: int) -> Bool[Array, "m b"]:
    if mask is None:
        return jnp.ones((len(config.modalities), num_examples), bool)
    _check_names("batch.mask", mask, config)
    for name in config.modalities:
        given = jnp.asarray(mask[name])
        if given.dtype != bool:
            raise ValueError(
                f"batch.mask[{name!r}] has dtype {given.dtype}, expected bool: compare it first"
                " (mask > 0.5), True is observed"
            )
        if given.shape != (num_examples,):
            raise ValueError(
                f"batch.mask[{name!r}] has shape {given.shape}, expected ({num_examples},): "
                "one value per example"
            )
    return jnp.stack([jnp.asarray(mask[name]) for name in config.modalities])
