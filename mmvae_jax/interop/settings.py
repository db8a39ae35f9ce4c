"""Conversion of MultiVae's settings of an MMVAE, an MMVAE+ or a CMVAE."""

import warnings
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from mmvae_jax.checks import check_at_least, check_count
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.interop.layers import Shape

MMVAE, MMVAE_PLUS, CMVAE = "MMVAEConfig", "MMVAEPlusConfig", "CMVAEConfig"

_COMMON = (
    "n_modalities",
    "latent_dim",
    "input_dims",
    "uses_likelihood_rescaling",
    "rescale_factors",
    "decoders_dist",
    "decoder_dist_params",
    "K",
    "prior_and_posterior_dist",
    "beta",
    "loss",
)
_PRIVATE = ("modalities_specific_dim", "learn_modality_prior", "reconstruction_option")
#: Fields of MultiVae's configs, by the config's name.
FIELDS: Mapping[str, tuple[str, ...]] = {
    MMVAE: (*_COMMON, "learn_prior"),
    MMVAE_PLUS: (*_COMMON, *_PRIVATE, "learn_shared_prior"),
    CMVAE: (*_COMMON, *_PRIVATE, "number_of_clusters"),
}
#: Fields of MultiVae's that have another name here.
RENAMED = {"learn_shared_prior": "learn_prior"}
#: Fields of every model's ``model_config.json`` that are no settings.
METADATA = ("name", "custom_architectures")
#: MultiVae's default loss, which is not the default here.
LOSS = "dreg_looser"
#: MultiVae's default of ``number_of_clusters``.
NUM_CLUSTERS = 10


class Settings(NamedTuple):
    """The settings of a MultiVae model.

    Attributes:
      name: name of MultiVae's config, a key of ``FIELDS``.
      config: config of this package, with channels last.
      images: (channels, height, width) of the modalities that are images.
      custom: ``encoders`` or ``decoders`` or both, where MultiVae's defaults were not used.
    """

    name: str
    config: MMVAEConfig
    images: dict[str, Shape]
    custom: frozenset[str]


def convert_settings(fields: Mapping[str, Any], params: Collection[str]) -> Settings:
    """Converts the fields of a ``model_config.json``.

    Three axes count as an image's (channels, height, width), except in categorical modalities.

    Args:
      fields: fields by MultiVae's names.
      params: names of the parameters, which identify the model where ``fields`` has no ``name``.

    Raises:
      ValueError: naming the field, its value and the fix.
    """
    name = fields.get("name", _name_by(params))
    _check_fields(name, fields)
    converted = {RENAMED.get(f, f): fields[f] for f in FIELDS[name] if f in fields}
    converted.setdefault("loss", LOSS)
    _check_latents(name, converted)
    _remove_ignored(name, converted)
    likelihoods = converted.get("decoders_dist") or {}
    images, dims = {}, {}
    for modality, dim in fields["input_dims"].items():
        is_shape = isinstance(dim, list | tuple)
        if is_shape and len(dim) == 3 and likelihoods.get(modality) != "categorical":
            images[modality] = channels, height, width = tuple(dim)
            dim = (height, width, channels)
        dims[modality] = dim
    config = MMVAEConfig(**{**converted, "input_dims": dims})
    return Settings(name, config, images, frozenset(fields.get("custom_architectures") or ()))


def _name_by(params: Collection[str]) -> str:
    """Returns the name of the config of the model that has parameters of these names."""
    roots = {name.partition(".")[0] for name in params}
    if "mean_clusters" in roots:
        return CMVAE
    return MMVAE_PLUS if "logvars_priors" in roots else MMVAE


def _check_fields(name: Any, fields: Mapping[str, Any]) -> None:
    if name not in FIELDS:
        raise ValueError(
            f"name is {name!r}: give a model whose config is one of {list(FIELDS)}; no other is "
            "converted"
        )
    unknown = sorted(set(fields) - {*FIELDS[name], *METADATA})
    if unknown:
        raise ValueError(
            f"the config has the fields {unknown}, which MultiVae 1.0's {name} does not know: "
            "leave them out, or give their values under the names of version 1.0"
        )
    if not isinstance(fields.get("input_dims"), Mapping):
        raise ValueError(
            f"input_dims is {fields.get('input_dims')!r}: give the shapes in MultiVae's order, as "
            'in config={"input_dims": {"image": (1, 28, 28)}}'
        )


def _check_latents(name: str, fields: dict[str, Any]) -> None:
    """Checks the sizes that models with private latents and clusters need."""
    if name != MMVAE:
        field = "modalities_specific_dim"
        fields[field] = check_count(field, fields.get(field))
    if name == CMVAE:
        field = "number_of_clusters"
        # One cluster is a prior whose location is trained; here its location is 0.
        fields[field] = check_at_least(field, fields.get(field, NUM_CLUSTERS), 2)


def _remove_ignored(name: str, fields: dict[str, Any]) -> None:
    """Removes settings that MultiVae accepts and does not train with."""
    if name == MMVAE and fields.pop("beta", 1) != 1:
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
