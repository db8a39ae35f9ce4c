"""Settings that may change from call to call without another compilation."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from mmvae_jax.checks import check_modalities
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.likelihood_params import LikelihoodParams, check_known
from mmvae_jax.likelihood_settings import columns_of


class Overrides(NamedTuple):
    """Values in place of fields of the config; a pytree, whose numbers may be traced.

    Fields that are left out keep the config's values. Gradients flow into ``decoder_dist_params``;
    beta and the factors are constants. A number in place of a ``Learned`` parameter replaces its
    current value, which then is not trained.

    Attributes:
      beta: weight of log p(z) - log q(z|X) in the log importance weights.
      rescale_factors: ``{modality: factor}`` of log p(x_m|z).
      decoder_dist_params: ``{modality: {parameter: value}}`` of the likelihoods.

    >>> warm_up = lambda step: Overrides(beta=min(1.0, 0.1 + step / 1000))
    >>> warm_up(400).beta
    0.5
    """

    beta: ArrayLike | None = None
    rescale_factors: Mapping[str, ArrayLike] | None = None
    decoder_dist_params: Mapping[str, Mapping[str, ArrayLike]] | None = None


class Numbers(NamedTuple):
    """The numbers of an objective, from the config or from ``Overrides``.

    Attributes:
      factors: rescale factor of each modality.
      beta: weight of log p(z) - log q_mix(z|X).
      likelihood_params: overridden parameters of likelihoods, by modality and name.
    """

    factors: Float[Array, " j"]
    beta: Float[Array, ""]
    likelihood_params: LikelihoodParams


def numbers(config: MMVAEConfig, overrides: Any, dtype: DTypeLike) -> Numbers:
    """Returns the config's numbers, with those of the overrides (or None) in their place.

    Raises:
      ValueError: for unknown modalities and parameters, and arrays where one number belongs.
    """
    given = Overrides() if overrides is None else overrides
    if not isinstance(given, Overrides):
        raise ValueError(
            f"overrides is a {type(given).__name__}: give mm.Overrides(beta=...), or None"
        )
    own_factors, own_params = given.rescale_factors or {}, given.decoder_dist_params or {}
    for field, names in (("rescale_factors", own_factors), ("decoder_dist_params", own_params)):
        check_modalities(f"overrides.{field}", names, config.modalities)
    factors = {**config.likelihood_factors, **own_factors}
    return Numbers(
        jnp.stack([_number(f"rescale_factors[{n!r}]", x, dtype) for n, x in factors.items()]),
        _number("beta", config.beta if given.beta is None else given.beta, dtype),
        {name: _checked_params(config, name, params, dtype) for name, params in own_params.items()},
    )


def _checked_params(
    config: MMVAEConfig, name: str, params: Any, dtype: DTypeLike
) -> dict[str, Float[Array, "..."]]:
    """Returns the parameters of a likelihood as arrays, those of a built-in one as scalars."""
    likelihood, known = config.likelihood(name)
    field = f"decoder_dist_params[{name!r}]"
    if not isinstance(params, Mapping):
        raise ValueError(f"overrides.{field} is {params!r}: give a dict such as {{'scale': 0.75}}")
    if not columns_of(likelihood):
        return {param: jnp.asarray(x, dtype) for param, x in params.items()}
    check_known(f"overrides.{field}", likelihood, known, params)
    return {param: _number(f"{field}[{param!r}]", x, dtype) for param, x in params.items()}


def _number(field: str, x: ArrayLike, dtype: DTypeLike) -> Float[Array, ""]:
    if jnp.shape(x) != ():
        raise ValueError(f"overrides.{field} has shape {jnp.shape(x)}: give one number")
    return jnp.asarray(x, dtype)
