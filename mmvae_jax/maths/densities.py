"""The built-in densities p(x_m|z) of one example, entry by entry, and draws from them.

Arrays are flattened before anything is summed: compilers sum one long axis faster than several,
XLA's CPU backend twenty times faster if the last axis is a single channel.
"""

from typing import Any

import distrax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

#: One scale for all entries of an example, or one for each entry of its last axis.
Scale = Float[Array, ""] | Float[Array, " features"] | float


def normal(
    decoded: Float[Array, "*dim"], x: Float[Array, "*dim"], *, scale: Scale
) -> Float[Array, " entries"]:
    """Returns log p(x) of a normal with the decoded mean."""
    return jnp.asarray(distrax.Normal(decoded.ravel(), _flat(scale, decoded)).log_prob(x.ravel()))


def laplace(
    decoded: Float[Array, "*dim"], x: Float[Array, "*dim"], *, scale: Scale
) -> Float[Array, " entries"]:
    """Returns log p(x) of a Laplace with the decoded location."""
    return jnp.asarray(distrax.Laplace(decoded.ravel(), _flat(scale, decoded)).log_prob(x.ravel()))


def bernoulli(decoded: Float[Array, "*dim"], x: Float[Array, "*dim"]) -> Float[Array, " entries"]:
    """Returns log p(x) of a Bernoulli with decoded logits (minus a cross-entropy for 0 < x < 1)."""
    return jnp.asarray(distrax.Bernoulli(logits=decoded.ravel()).log_prob(x.ravel()))


def categorical(
    decoded: Float[Array, "*dim classes"], x: Shaped[Array, "*target"]
) -> Float[Array, " entries"]:
    """Returns log p(x) of a categorical with decoded logits, one entry per vector of logits.

    Targets x are one-hot, ``[*dim, classes]``, or integers, ``[*dim]``.
    """
    if jnp.issubdtype(x.dtype, jnp.integer):
        return jnp.ravel(distrax.Categorical(logits=decoded).log_prob(x))
    return jnp.ravel(distrax.OneHotCategorical(logits=decoded).log_prob(x))


def location(decoded: Array, *, scale: Scale) -> Array:
    """Returns the mean of a normal or Laplace: the decoded array."""
    del scale
    return decoded


def sample_normal(key: Array, decoded: Array, *, scale: Scale) -> Array:
    """Draws from a normal with the decoded mean."""
    return distrax.Normal(decoded, scale).sample(seed=key)


def sample_laplace(key: Array, decoded: Array, *, scale: Scale) -> Array:
    """Draws from a Laplace with the decoded location."""
    return distrax.Laplace(decoded, scale).sample(seed=key)


def sample_bernoulli(key: Array, decoded: Array) -> Array:
    """Draws zeros and ones from a Bernoulli with decoded logits."""
    return distrax.Bernoulli(logits=decoded, dtype=decoded.dtype).sample(seed=key)


def sample_categorical(key: Array, decoded: Array) -> Array:
    """Draws one-hot vectors from a categorical with decoded logits."""
    return distrax.OneHotCategorical(logits=decoded, dtype=decoded.dtype).sample(seed=key)


def _flat(scale: Scale, decoded: Array) -> Any:
    """Returns the scale of every entry of a flattened array; one scale for all as it is."""
    return scale if jnp.ndim(scale) == 0 else jnp.broadcast_to(scale, decoded.shape).ravel()
