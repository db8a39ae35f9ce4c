"""Conversion of MultiVae's settings of an MMVAE."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmvae_jax.config import MMVAEConfig
from mmvae_jax.interop.layers import Shape

#: Fields of the config here that MultiVae's has not.
OWN_FIELDS = ("min_scale", "experts_per_step")
#: MultiVae's default loss, which is not the default here.
LOSS = "dreg_looser"


class Settings(NamedTuple):
    """The settings of a MultiVae model.

    Attributes:
      config: config of this package, with channels last.
      images: (channels, height, width) of the modalities that are images.
      custom: ``encoders`` or ``decoders`` or both, where MultiVae's defaults were not used.
    """

    config: MMVAEConfig
    images: dict[str, Shape]
    custom: frozenset[str]


def convert_settings(fields: Mapping[str, Any]) -> Settings:
    """Converts the fields of a ``model_config.json``.

    Three axes count as an image's (channels, height, width), except in categorical modalities.

    Raises:
      ValueError: naming the field, its value and the fix.
    """
    _check_fields(fields)
    converted = {name: fields[name] for name in _field_names() if name in fields}
    converted.setdefault("loss", LOSS)
    _remove_ignored(converted)
    likelihoods = converted.get("decoders_dist") or {}
    images, dims = {}, {}
    for name, dim in fields["input_dims"].items():
        is_shape = isinstance(dim, list | tuple)
        if is_shape and len(dim) == 3 and likelihoods.get(name) != "categorical":
            images[name] = channels, height, width = tuple(dim)
            dim = (height, width, channels)
        dims[name] = dim
    config = MMVAEConfig(**{**converted, "input_dims": dims})
    return Settings(config, images, frozenset(fields.get("custom_architectures") or ()))


def _field_names() -> list[str]:
    """Returns the fields that MultiVae's config has too."""
    return [f.name for f in dataclasses.fields(MMVAEConfig) if f.name not in OWN_FIELDS]


def _check_fields(fields: Mapping[str, Any]) -> None:
    name = fields.get("name", "MMVAEConfig")
    if name != "MMVAEConfig":
        raise ValueError(f"name is {name!r}: give an MMVAE; no other model is converted")
    unknown = sorted(set(fields) - {*_field_names(), "name", "custom_architectures"})
    if unknown:
        raise ValueError(
            f"the config has the fields {unknown}, which MultiVae 1.0 does not know: leave them "
            "out, or give their values under the names of version 1.0"
        )
    if not isinstance(fields.get("input_dims"), Mapping):
        raise ValueError(
            f"input_dims is {fields.get('input_dims')!r}: give the shapes in MultiVae's order, as "
            'in config={"input_dims": {"image": (1, 28, 28)}}'
        )


def _remove_ignored(fields: dict[str, Any]) -> None:
    """Removes settings that MultiVae accepts and does not train with."""
    if fields.pop("beta", 1) != 1:
        warnings.warn(
            "MultiVae's MMVAE accepts beta and ignores it: the model was trained with beta = 1, "
            "and has that here",
            stacklevel=4,
        )
    if fields.get("rescale_factors") and not fields.get("uses_likelihood_rescaling"):
        del fields["rescale_factors"]
        warnings.warn(
            "MultiVae ignores rescale_factors without uses_likelihood_rescaling: the model was "
            "trained without factors, and has none here",
            stacklevel=4,
        )
