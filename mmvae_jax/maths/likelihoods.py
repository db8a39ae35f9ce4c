"""The likelihoods p(x_m|z) of one example, built-in and custom."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from mmvae_jax.maths import counts, densities


class Likelihood(NamedTuple):
    """A likelihood: built-in (``LIKELIHOODS``) or custom.

    All functions also take the config's ``decoder_dist_params`` of the modality, by keyword.

    Attributes:
      log_prob: ``(decoded [*input_dim], x) -> log p(x|z) []`` of one example, where x is
        ``[*input_dim]``, or the pytree of arrays that the batches hold of an example.
      sample: ``(key, decoded [*n, *input_dim]) -> [*n, *input_dim]`` draws x given the decoded
        array; None for a likelihood that is never drawn from.
      entry_log_prob: ``(decoded [*input_dim], x) -> [entries]``, the log density of every entry of
        x, flattened; ``log_prob`` is its sum. The entries of a categorical are its vectors over
        the last axis. None for a likelihood whose entries depend on each other.
      mean: ``decoded [*n, *input_dim] -> [*n, *input_dim]``, the expected value of x;
        probabilities for Bernoulli and categorical. None for a likelihood without a mean.

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
    entry_log_prob: Callable[..., Float[Array, " entries"]] | None = None
    mean: Callable[..., Array] | None = None


class Incomplete(NamedTuple):
    """Data whose entries may be missing one by one, as a pytree in the place of an array.

    Attributes:
      values: data ``[*n, *dim]``, with zeros where missing.
      observed: True for observed entries, ``[*n, *dim]``; ``[*n, *dim[:-1]]`` of a categorical.
    """

    values: Shaped[Array, "..."]
    observed: Bool[Array, "..."]


def of_entries(
    entry_log_prob: Callable[..., Float[Array, " entries"]],
    sample: Callable[..., Array] | None = None,
    mean: Callable[..., Array] | None = None,
) -> Likelihood:
    """Returns the likelihood of independent entries, whose log density is the sum of theirs."""

    def log_prob(decoded: Array, x: Array, **params: Any) -> Float[Array, ""]:
        return entry_log_prob(decoded, x, **params).sum()

    return Likelihood(log_prob, sample, entry_log_prob, mean)


LIKELIHOODS: dict[str, Likelihood] = {
    "normal": of_entries(densities.normal, densities.sample_normal, densities.location),
    "laplace": of_entries(densities.laplace, densities.sample_laplace, densities.location),
    "bernoulli": of_entries(densities.bernoulli, densities.sample_bernoulli, jax.nn.sigmoid),
    "categorical": of_entries(densities.categorical, densities.sample_categorical, jax.nn.softmax),
    "poisson": of_entries(counts.poisson, counts.sample_poisson, counts.mean),
    "negative_binomial": of_entries(
        counts.negative_binomial, counts.sample_negative_binomial, counts.mean
    ),
    "zero_inflated_negative_binomial": of_entries(
        counts.zero_inflated_negative_binomial,
        counts.sample_zero_inflated_negative_binomial,
        counts.mean,
    ),
}


class Support(NamedTuple):
    """The values that a built-in likelihood can have.

    Attributes:
      low: smallest value.
      high: largest value.
      is_one_hot: True for vectors over the last axis that sum to 1.
      is_count: True for whole numbers.
    """

    low: float = -math.inf
    high: float = math.inf
    is_one_hot: bool = False
    is_count: bool = False


SUPPORTS: dict[str, Support] = {
    "normal": Support(),
    "laplace": Support(),
    "bernoulli": Support(0, 1),
    "categorical": Support(0, 1, is_one_hot=True),
    "poisson": Support(0, counts.LARGEST, is_count=True),
    "negative_binomial": Support(0, counts.LARGEST, is_count=True),
    "zero_inflated_negative_binomial": Support(0, counts.LARGEST, is_count=True),
}


def log_likelihood(
    likelihood: Likelihood, params: Mapping[str, Any]
) -> Callable[[Array, PyTree], Float[Array, " n"]]:
    """Returns the function ``(decoded [n, *dim], x [n, *dim]) -> log p(x|z) [n]``.

    Missing entries of ``Incomplete`` data drop out of the sum.
    """

    def log_prob(decoded: Array, x: PyTree) -> Float[Array, ""]:
        if not isinstance(x, Incomplete):
            return likelihood.log_prob(decoded, x, **params)
        assert likelihood.entry_log_prob is not None, "batches check it"
        if params.get("library_size") is not None:
            # The total is that of the observed entries, so the others have no share of it.
            decoded = jnp.where(x.observed, decoded, -1e9)
        each = likelihood.entry_log_prob(decoded, x.values, **params)
        return jnp.where(x.observed.ravel(), each, 0).sum()

    return jax.vmap(log_prob)
