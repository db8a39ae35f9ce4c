"""Posterior families, the prior, and the mixture of experts under a mask."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray

#: Default floor of the scales, that of Shi et al. (2019): away from 0, where a density is a spike.
MIN_SCALE = 1e-6
#: Raw outputs of the family ``normal`` for scales from about ``MIN_SCALE`` to 148.
RAW_RANGE = (-28.0, 10.0)


class Family(NamedTuple):
    """A location-scale family, used for the prior and for every expert.

    Built-in families are in ``FAMILIES``; a custom one goes into the config's
    ``prior_and_posterior_dist``. Draws are ``z = loc + scale * standard``.

    Attributes:
      to_scale: raw network output ``[*n, d]`` to positive scales of the same shape.
      log_prob: ``(z, loc, scale) -> log density``, each ``[*n, d]``, summed over d.
      standard: ``(key, shape, dtype) -> draws`` with location 0 and scale 1.

    >>> def log_prob(z, loc, scale):
    ...     return (jax.scipy.stats.logistic.logpdf((z - loc) / scale) - jnp.log(scale)).sum(-1)
    >>> logistic = mm.Family(jax.nn.softplus, log_prob, jax.random.logistic)
    >>> other = mm.MMVAE(config.replace(prior_and_posterior_dist=logistic), rngs=nnx.Rngs(0))
    >>> jax.jit(mm.loss)(other, batch, jax.random.key(0)).shape
    ()
    """

    to_scale: Callable[[Array], Array]
    log_prob: Callable[[Array, Array, Array], Array]
    standard: Callable[[PRNGKeyArray, tuple[int, ...], DTypeLike], Array]


def _softmax_scale(
    log_var: Float[Array, "*n d"], min_scale: float = MIN_SCALE
) -> Float[Array, "*n d"]:
    """Returns ``softmax(raw) d + min_scale``: scales that sum to d (code of Shi et al. 2019)."""
    return jax.nn.softmax(log_var, axis=-1) * log_var.shape[-1] + min_scale


def _softplus_scale(
    log_var: Float[Array, "*n d"], min_scale: float = MIN_SCALE
) -> Float[Array, "*n d"]:
    """Returns ``softplus(raw) + min_scale`` (code of Palumbo et al. 2023)."""
    return jax.nn.softplus(log_var) + min_scale


def _exp_scale(log_var: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Returns ``exp(raw / 2)``: the raw output is the logarithm of a variance.

    Beyond ``RAW_RANGE``, where networks get by data of large units and the exponential overflows or
    underflows, the scale and its inverse continue as square roots. The scale is exact within the
    range, has a continuous derivative, and is never without a gradient.
    """
    low, high = RAW_RANGE
    above, below = jnp.maximum(log_var - high, 0), jnp.maximum(low - log_var, 0)
    return jnp.exp(jnp.clip(log_var, low, high) / 2) * jnp.sqrt((1 + above) / (1 + below))


def _laplace_log_prob(
    z: Float[Array, "*#n d"], loc: Float[Array, "*#n d"], scale: Float[Array, "*#n d"]
) -> Float[Array, "*n"]:
    return distrax.Laplace(loc, scale).log_prob(z).sum(-1)


def _normal_log_prob(
    z: Float[Array, "*#n d"], loc: Float[Array, "*#n d"], scale: Float[Array, "*#n d"]
) -> Float[Array, "*n"]:
    return distrax.Normal(loc, scale).log_prob(z).sum(-1)


FAMILIES: dict[str, Family] = {
    "laplace_with_softmax": Family(_softmax_scale, _laplace_log_prob, jax.random.laplace),
    "normal": Family(_exp_scale, _normal_log_prob, jax.random.normal),
    "normal_with_softplus": Family(_softplus_scale, _normal_log_prob, jax.random.normal),
}

#: Functions ``(raw, min_scale)`` to scales, of the families whose scales have a floor.
FLOORED: dict[str, Callable[..., Array]] = {
    "laplace_with_softmax": _softmax_scale,
    "normal_with_softplus": _softplus_scale,
}


@lru_cache
def family_of(setting: str | Family, min_scale: float = MIN_SCALE) -> Family:
    """Returns the family for a config's ``prior_and_posterior_dist`` and ``min_scale``.

    Equal arguments give the same object, so that a family which is static under ``jax.jit`` does
    not compile again.
    """
    if not isinstance(setting, str):
        return setting
    if setting not in FLOORED or min_scale == MIN_SCALE:
        return FAMILIES[setting]
    to_scale = partial(FLOORED[setting], min_scale=min_scale)
    return FAMILIES[setting]._replace(to_scale=to_scale)


def mixture_log_prob(log_q: Float[Array, "j *n"], mask: Bool[Array, "j *n"]) -> Float[Array, "*n"]:
    """Returns the log density of the mixture of the observed experts.

    ``log q_mix(z|X) = logsumexp_{j in S} log q_j(z|x_j) - log |S|`` (Shi et al. 2019, eq. 2).

    Args:
      log_q: log density of each expert at the same points.
      mask: True for observed experts, at least one at every point.
    """
    observed = jnp.where(mask, log_q, -jnp.inf)
    num_observed = mask.sum(0).astype(log_q.dtype)
    return jax.nn.logsumexp(observed, axis=0) - jnp.log(num_observed)


def responsibilities(
    log_q: Float[Array, "j *n"], mask: Bool[Array, "j *n"]
) -> Float[Array, "j *n"]:
    """Returns each expert's share of the mixture, ``r_j(z) = q_j(z) / sum_{i in S} q_i(z)``."""
    return jax.nn.softmax(jnp.where(mask, log_q, -jnp.inf), axis=0)
