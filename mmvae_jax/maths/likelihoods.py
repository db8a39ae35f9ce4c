"""The likelihoods p(x_m|z) of one example; log densities are sums over its event axes.

Densities that treat all axes alike flatten them first: compilers sum one long axis faster than
several, XLA's CPU backend twenty times faster if the last axis is a single channel.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Shaped


class Likelihood(NamedTuple):
    """A likelihood: built-in (``LIKELIHOODS``) or custom.

    Both functions also take the config's ``decoder_dist_params`` of the modality, by keyword.

    Attributes:
      log_prob: ``(decoded [*input_dim], x) -> log p(x|z) []`` of one example, where x is
        ``[*input_dim]``, or the pytree of arrays that the batches hold of an example.
      sample: ``(key, decoded [*n, *input_dim]) -> [*n, *input_dim]`` draws x given the decoded
        array; None for a likelihood that is never drawn from.

    >>> def log_prob(decoded, x):
    ...     return jax.scipy.stats.poisson.logpmf(x, jnp.exp(decoded)).sum()
    >>> def sample(key, decoded):
    ...     return jax.random.poisson(key, jnp.exp(decoded)).astype(decoded.dtype)
    >>> counts = mm.MMVAEConfig(input_dims={"counts": (3,)},
    ...                         decoders_dist={"counts": mm.Likelihood(log_prob, sample)})
    >>> other = mm.MMVAE(counts, rngs=nnx.Rngs(0))
    >>> mm.generate(other, jax.random.key(0), 7, sample=True)["counts"].shape
    (7, 3)
    """

    log_prob: Callable[..., Float[Array, ""]]
    sample: Callable[..., Array] | None = None


#: One scale for all entries of an example, or one for each entry of its last axis.
Scale = Float[Array, ""] | Float[Array, " features"] | float


def normal(
    decoded: Float[Array, "*dim"], x: Float[Array, "*dim"], *, scale: Scale
) -> Float[Array, ""]:
    """Returns log p(x) of a normal with the decoded mean."""
    return distrax.Normal(decoded.ravel(), _flat(scale, decoded)).log_prob(x.ravel()).sum()


def laplace(
    decoded: Float[Array, "*dim"], x: Float[Array, "*dim"], *, scale: Scale
) -> Float[Array, ""]:
    """Returns log p(x) of a Laplace with the decoded location."""
    return distrax.Laplace(decoded.ravel(), _flat(scale, decoded)).log_prob(x.ravel()).sum()


def bernoulli(decoded: Float[Array, "*dim"], x: Float[Array, "*dim"]) -> Float[Array, ""]:
    """Returns log p(x) of a Bernoulli with decoded logits (minus a cross-entropy for 0 < x < 1)."""
    return distrax.Bernoulli(logits=decoded.ravel()).log_prob(x.ravel()).sum()


def categorical(
    decoded: Float[Array, "*dim classes"], x: Shaped[Array, "*target"]
) -> Float[Array, ""]:
    """Returns log p(x) of a categorical with decoded logits.

    Targets x are one-hot, ``[*dim, classes]``, or integers, ``[*dim]``.
    """
    if jnp.issubdtype(x.dtype, jnp.integer):
        return distrax.Categorical(logits=decoded).log_prob(x).sum()
    return distrax.OneHotCategorical(logits=decoded).log_prob(x).sum()


def _flat(scale: Scale, decoded: Array) -> Any:
    """Returns the scale of every entry of a flattened array; one scale for all as it is."""
    return scale if jnp.ndim(scale) == 0 else jnp.broadcast_to(scale, decoded.shape).ravel()


def _sample_normal(key: Array, decoded: Array, *, scale: Scale) -> Array:
    return distrax.Normal(decoded, scale).sample(seed=key)


def _sample_laplace(key: Array, decoded: Array, *, scale: Scale) -> Array:
    return distrax.Laplace(decoded, scale).sample(seed=key)


def _sample_bernoulli(key: Array, decoded: Array) -> Array:
    return distrax.Bernoulli(logits=decoded, dtype=decoded.dtype).sample(seed=key)


def _sample_categorical(key: Array, decoded: Array) -> Array:
    return distrax.OneHotCategorical(logits=decoded, dtype=decoded.dtype).sample(seed=key)


LIKELIHOODS: dict[str, Likelihood] = {
    "normal": Likelihood(normal, _sample_normal),
    "laplace": Likelihood(laplace, _sample_laplace),
    "bernoulli": Likelihood(bernoulli, _sample_bernoulli),
    "categorical": Likelihood(categorical, _sample_categorical),
}


class Support(NamedTuple):
    """The values that a built-in likelihood can have.

    Attributes:
      low: smallest value.
      high: largest value.
      is_one_hot: True for vectors over the last axis that sum to 1.
    """

    low: float = -math.inf
    high: float = math.inf
    is_one_hot: bool = False


SUPPORTS: dict[str, Support] = {
    "normal": Support(),
    "laplace": Support(),
    "bernoulli": Support(0, 1),
    "categorical": Support(0, 1, is_one_hot=True),
}


def likelihood_of(setting: str | Likelihood | Callable[..., Any]) -> Likelihood:
    """Returns the likelihood that a setting in ``decoders_dist`` names.

    A function is the log density of a likelihood without draws.
    """
    if isinstance(setting, str):
        return LIKELIHOODS[setting]
    return setting if isinstance(setting, Likelihood) else Likelihood(setting)


def log_likelihood(
    likelihood: Likelihood, params: Mapping[str, Any]
) -> Callable[[Array, PyTree], Float[Array, " n"]]:
    """Returns the function ``(decoded [n, *dim], x [n, *dim]) -> log p(x|z) [n]``."""
    return jax.vmap(lambda decoded, x: likelihood.log_prob(decoded, x, **params))
