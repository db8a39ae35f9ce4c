"""log p(x_m|z) of one example, summed over its event axes.

Those that treat all axes alike flatten them first: compilers sum one long axis faster than several,
XLA's CPU backend twenty times where the last axis is a single channel.
"""

from collections.abc import Callable, Mapping
from typing import Any

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

LogLikelihood = Callable[..., Float[Array, ""]]


def normal(
    decoded: Float[Array, "*dim"], x: Float[Array, "*dim"], *, scale: float
) -> Float[Array, ""]:
    """Normal with the decoded mean and one scale for all axes."""
    return distrax.Normal(decoded.ravel(), scale).log_prob(x.ravel()).sum()


def laplace(
    decoded: Float[Array, "*dim"], x: Float[Array, "*dim"], *, scale: float
) -> Float[Array, ""]:
    """Laplace with the decoded location and one scale for all axes."""
    return distrax.Laplace(decoded.ravel(), scale).log_prob(x.ravel()).sum()


def bernoulli(decoded: Float[Array, "*dim"], x: Float[Array, "*dim"]) -> Float[Array, ""]:
    """Bernoulli with decoded logits; x between 0 and 1 gives minus the cross-entropy."""
    return distrax.Bernoulli(logits=decoded.ravel()).log_prob(x.ravel()).sum()


def categorical(
    decoded: Float[Array, "*dim classes"], x: Shaped[Array, "*target"]
) -> Float[Array, ""]:
    """Categorical with decoded logits; x one-hot ``[*dim, classes]`` or integer ``[*dim]``."""
    if jnp.issubdtype(x.dtype, jnp.integer):
        return distrax.Categorical(logits=decoded).log_prob(x).sum()
    return distrax.OneHotCategorical(logits=decoded).log_prob(x).sum()


LIKELIHOODS: dict[str, LogLikelihood] = {
    "normal": normal,
    "laplace": laplace,
    "bernoulli": bernoulli,
    "categorical": categorical,
}


# One draw of x given what was decoded; keyword parameters as in LIKELIHOODS.
SAMPLERS: dict[str, Callable[..., Array]] = {
    "normal": lambda key, decoded, scale: distrax.Normal(decoded, scale).sample(seed=key),
    "laplace": lambda key, decoded, scale: distrax.Laplace(decoded, scale).sample(seed=key),
    "bernoulli": lambda key, decoded: distrax.Bernoulli(logits=decoded, dtype=decoded.dtype).sample(
        seed=key
    ),
    "categorical": lambda key, decoded: distrax.OneHotCategorical(
        logits=decoded, dtype=decoded.dtype
    ).sample(seed=key),
}


def log_likelihood(
    likelihood: str | LogLikelihood, params: Mapping[str, Any]
) -> Callable[[Array, Array], Float[Array, " n"]]:
    """``(decoded [n, *dim], x [n, *dim]) -> log p(x|z) [n]`` of a named or a user's likelihood."""
    one = LIKELIHOODS[likelihood] if isinstance(likelihood, str) else likelihood
    return jax.vmap(lambda decoded, x: one(decoded, x, **params))
