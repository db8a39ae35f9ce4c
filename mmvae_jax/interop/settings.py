"""MultiVae's settings of an MMVAE as settings here."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmvae_jax.config import MMVAEConfig
from mmvae_jax.interop.layers import Shape

# Strings that MultiVae, by pydantic, takes for booleans: bool("False") is True.
BOOLEANS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}


class Settings(NamedTuple):
    """Settings of a model of MultiVae's.

    Attributes:
      config: here, with channels last.
      images: (channels, height, width) of the modalities that are images.
      custom: ``encoders`` or ``decoders`` or both, where MultiVae's defaults were not used.
    """

    config: MMVAEConfig
    images: dict[str, Shape]
    custom: frozenset[str]


def convert_settings(fields: Mapping[str, Any]) -> Settings:
    """Convert the fields of a ``model_config.json``.

    Three axes count as an image's (channels, height, width), but for categorical modalities.

    Raises:
      ValueError: naming the field, its value and the fix.
    """
    _check_fields(fields)
    converted = {name: fields[name] for name in _known() if name in fields}
    for name in ("learn_prior", "uses_likelihood_rescaling"):
        if isinstance(value := converted.get(name), str) and value.lower() in BOOLEANS:
            converted[name] = BOOLEANS[value.lower()]
    _leave_out_what_multivae_ignores(converted)
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


def _known() -> list[str]:
    return [field.name for field in dataclasses.fields(MMVAEConfig)]


def _check_fields(fields: Mapping[str, Any]) -> None:
    name = fields.get("name", "MMVAEConfig")
    if name != "MMVAEConfig":
        raise ValueError(
            f"name is {name!r}: this is no MMVAE of MultiVae's, and no other model is converted"
        )
    unknown = sorted(set(fields) - {*_known(), "name", "custom_architectures"})
    if unknown:
        raise ValueError(
            f"the config has the fields {unknown}, which MultiVae 1.0 does not know: leave them "
            "out, or give their values under the names of now"
        )
    if not isinstance(fields.get("input_dims"), Mapping):
        raise ValueError(
            f"input_dims is {fields.get('input_dims')!r}: give the shapes in MultiVae's order, as "
            'in config={"input_dims": {"image": (1, 28, 28)}}'
        )


def _leave_out_what_multivae_ignores(fields: dict[str, Any]) -> None:
    """Set beta to 1 and drop factors that are not used: so the model was trained."""
    if fields.pop("beta", 1) != 1:
        warnings.warn(
            "MultiVae's MMVAE accepts beta and ignores it: the model was trained with beta = 1, "
            "which it has here",
            stacklevel=4,
        )
    if fields.get("rescale_factors") and not fields.get("uses_likelihood_rescaling"):
        del fields["rescale_factors"]
        warnings.warn(
            "MultiVae ignores rescale_factors without uses_likelihood_rescaling: the model was "
            "trained without, and has none here",
            stacklevel=4,
        )
