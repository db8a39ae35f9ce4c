r"""Densities of counts, entry by entry: Poisson, negative binomial, and with excess zeros.

Decoders give log means. Sums of ``lgamma`` lose all digits of large counts in single precision:
the logarithm of 10^6! is 1.3e7, known to within 1. All densities are therefore written as
deviances, whose terms are of the order of the result (Loader 2000, "Fast and accurate computation
of binomial probabilities"). With

.. math:: g(t) = e^t - 1 - t, \qquad c(y) = y \log y - y - \log \Gamma(y + 1),

where c(x) is the log density of a Poisson at its mean,

.. math::
   \log \mathrm{Poisson}(x; \mu) &= c(x) - x\, g(t), & t &= \log \mu - \log x \\
   \log \mathrm{NB}(x; \mu, r) &= c(x) + c(r) - c(x + r) + \log \tfrac{r}{x + r}
      - r\, g(t_1) - x\, g(t_2), & t_1 &= \log \tfrac{x + r}{\mu + r}, \quad t_2 = t_1 + t.

Hilbe (2011), "Negative Binomial Regression", has the parametrisation: r is the inverse dispersion,
the variance is ``mean + mean^2 / r``. Lopez et al. (2018, scVI) use these likelihoods for counts of
single cells.

**Library size.** A total that reflects the measurement, such as the depth of sequencing, can be
left to the data: with a ``library_size``, a decoder gives logits of the features' shares (of the
last axis), and the mean is ``size * softmax(decoded)``. In densities, the size is the total that x
itself has, a covariate of the example. In draws, it is ``library_size``.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

#: A positive parameter of all entries, or one for each entry of the last axis.
Positive = Float[Array, ""] | Float[Array, " features"] | float | int

#: Size of a library in draws and means, or of each one, with a last axis of length one; in
#: densities, anything but None turns shares of the total on.
LibrarySize = Float[Array, ""] | Float[Array, "*libraries 1"] | float | int | None

#: Log means above this value count as this value, so that no gradient overflows.
MAX_LOG_MEAN = 40.0
#: Largest count, and largest mean of draws, which JAX makes as 32-bit integers.
LARGEST = 2e9


def poisson(
    decoded: Float[Array, "*dim"], x: Float[Array, "*dim"], *, library_size: LibrarySize = None
) -> Float[Array, " entries"]:
    """Returns log p(x) of a Poisson with the decoded log mean."""
    log_mean, x = _log_mean_of(decoded, x, library_size), _flat(x, decoded)
    positive, log_x = _positive(x)
    t = log_mean - log_x
    # x g(t), or the mean where x is zero.
    return _log_peak(x) - (positive * jnp.expm1(t) - x * t + (positive - x))


def negative_binomial(
    decoded: Float[Array, "*dim"],
    x: Float[Array, "*dim"],
    *,
    dispersion: Positive,
    library_size: LibrarySize = None,
) -> Float[Array, " entries"]:
    """Returns log p(x) of a negative binomial with the decoded log mean.

    Args:
      decoded: log means, or logits of shares with a ``library_size``.
      x: counts.
      dispersion: inverse dispersion r; the variance is ``mean + mean^2 / r``.
      library_size: size of draws, which turns the logits of shares on.
    """
    log_mean, x = _log_mean_of(decoded, x, library_size), _flat(x, decoded)
    r = _flat(dispersion, decoded)
    peak = _log_peak(x) + _log_peak(r) - _log_peak(x + r) - jnp.log1p(x / r)
    return peak - _deviance(log_mean, x, r)


def zero_inflated_negative_binomial(
    decoded: Float[Array, "*dim"],
    x: Float[Array, "*dim"],
    *,
    dispersion: Positive,
    zero_odds: Positive,
    library_size: LibrarySize = None,
) -> Float[Array, " entries"]:
    r"""Returns log p(x) of a mixture of zero and a negative binomial.

    The odds of zero are a parameter, not an output of the decoder (as in scVI), so that custom
    decoders have one output per feature under any likelihood::

        p(x) = (odds [x = 0] + NB(x)) / (1 + odds)

    Args:
      decoded: log means of the negative binomial, or logits of shares with a ``library_size``.
      x: counts.
      dispersion: inverse dispersion r of the negative binomial.
      zero_odds: odds of an excess zero, its probability over that of the negative binomial.
      library_size: size of draws, which turns the logits of shares on.
    """
    log_p = negative_binomial(decoded, x, dispersion=dispersion, library_size=library_size)
    r, odds = _flat(dispersion, decoded), _flat(zero_odds, decoded)
    log_zero = -r * _softplus(_log_mean_of(decoded, x, library_size) - jnp.log(r))
    # Products in place of a selection, which makes XLA's CPU backend twice as slow.
    is_zero = (_flat(x, decoded) == 0).astype(log_p.dtype)
    log_p = (1 - is_zero) * log_p + is_zero * jnp.log(odds + jnp.exp(log_zero))
    return log_p - jnp.log1p(odds)


def mean(
    decoded: Float[Array, "*n features"],
    *,
    dispersion: Positive | None = None,
    zero_odds: Positive = 0.0,
    library_size: LibrarySize = None,
) -> Float[Array, "*n features"]:
    """Returns the mean count of all three likelihoods; with excess zeros, ``mean / (1 + odds)``."""
    del dispersion
    log_size = None if library_size is None else jnp.log(library_size)
    return jnp.exp(_log_mean(decoded, log_size)) / (1 + _along(zero_odds, decoded))


def sample_poisson(key: Array, decoded: Array, *, library_size: LibrarySize = None) -> Array:
    """Draws from a Poisson with the decoded log mean, as floats."""
    return _draw_counts(key, mean(decoded, library_size=library_size))


def sample_negative_binomial(
    key: Array, decoded: Array, *, dispersion: Positive, library_size: LibrarySize = None
) -> Array:
    """Draws from a negative binomial, a Poisson with a rate from a gamma distribution."""
    rate_key, count_key = jax.random.split(key)
    r = jnp.broadcast_to(_along(dispersion, decoded), decoded.shape)
    rate = jax.random.gamma(rate_key, r, dtype=decoded.dtype) / r
    return _draw_counts(count_key, rate * mean(decoded, library_size=library_size))


def sample_zero_inflated_negative_binomial(
    key: Array,
    decoded: Array,
    *,
    dispersion: Positive,
    zero_odds: Positive,
    library_size: LibrarySize = None,
) -> Array:
    """Draws from a negative binomial, or zero with the given odds."""
    zero_key, key = jax.random.split(key)
    odds = jnp.broadcast_to(_along(zero_odds, decoded), decoded.shape)
    is_zero = jax.random.bernoulli(zero_key, odds / (1 + odds))
    x = sample_negative_binomial(key, decoded, dispersion=dispersion, library_size=library_size)
    return jnp.where(is_zero, 0, x)


@jax.custom_jvp
def _deviance(
    log_mean: Float[Array, " n"], x: Float[Array, " n"], r: Float[Array, " n"]
) -> Float[Array, " n"]:
    """Returns ``r g(t1) + x g(t2)``, which is ``r log (mu + r) / r`` where x is zero."""
    return _deviance_and_derivatives(log_mean, x, r)[0]


@_deviance.defjvp
def _deviance_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    """Returns the deviance and its tangent; x is data.

    The derivative by t1 at fixed log means is ``r e^t1 + x e^t2 - r - x``, which is zero. Two of
    the terms of the value are thus all that the derivatives need.
    """
    deviance, by_log_mean, by_r = _deviance_and_derivatives(*primals)
    log_mean_dot, _, r_dot = tangents
    return deviance, by_log_mean * log_mean_dot + by_r * r_dot


def _deviance_and_derivatives(log_mean: Array, x: Array, r: Array) -> tuple[Array, Array, Array]:
    positive, log_x = _positive(x)
    t1 = jnp.log1p(x / r) - _softplus(log_mean - jnp.log(r))
    t2 = t1 + log_mean - log_x
    by_log_mean = positive * jnp.expm1(t2) + (positive - x)
    by_r = jnp.expm1(t1) - t1
    return r * by_r + by_log_mean - x * t2, by_log_mean, by_r


@jax.custom_jvp
def _softplus(x: Array) -> Array:
    """Returns ``log(1 + e^x)`` of finite x, five times as fast as ``jax.nn.softplus`` on CPU."""
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


_softplus.defjvps(lambda tangent, _, x: tangent * jax.nn.sigmoid(x))


def _log_mean_of(decoded: Array, x: Array, library_size: LibrarySize) -> Float[Array, " entries"]:
    """Returns the flattened log mean of each entry, given x; almost -inf in an empty library."""
    if library_size is None:
        return _log_mean(decoded, None).ravel()
    total = x.sum(-1, keepdims=True)
    return _log_mean(decoded, jnp.log(jnp.where(total > 0, total, 1e-30))).ravel()


def _log_mean(decoded: Array, log_size: Array | None) -> Array:
    if log_size is not None:
        decoded = jax.nn.log_softmax(decoded)
        decoded = decoded + _along(log_size, decoded)
    return jnp.minimum(decoded, MAX_LOG_MEAN)


def _draw_counts(key: Array, rate: Array) -> Array:
    return jax.random.poisson(key, jnp.minimum(rate, LARGEST)).astype(rate.dtype)


def _positive(x: Array) -> tuple[Array, Array]:
    """Returns x, ones in the place of zeros, and its logarithm: gradients stay finite."""
    positive = jnp.where(x > 0, x, 1)
    return positive, jnp.log(positive)


def _log_peak(y: Array) -> Array:
    """Returns c(y); by Stirling's series where y is large."""
    is_small = y < 16
    small, large = jnp.where(is_small & (y > 0), y, 1), jnp.where(is_small, 16, y)
    direct = small * jnp.log(small) - small - jax.lax.lgamma(small + 1)
    s = 1 / jnp.square(large)
    series = (1 / 12 - s * (1 / 360 - s * (1 / 1260 - s * (1 / 1680 - s / 1188)))) / large
    stirling = -series - 0.5 * jnp.log(2 * math.pi * large)
    # lgamma(1) is not quite zero, and most counts are.
    return jnp.where(y == 0, 0, jnp.where(is_small, direct, stirling))


def _flat(value: Any, decoded: Array) -> Array:
    """Returns a value of every entry of a flattened array, in its type."""
    value = jnp.asarray(value, decoded.dtype)
    return jnp.broadcast_to(_along(value, decoded), decoded.shape).ravel()


def _along(value: Any, decoded: Array) -> Array:
    """Returns a value with as many axes as the array, whose last axes it has."""
    value = jnp.asarray(value)
    return value.reshape((1,) * (decoded.ndim - value.ndim) + value.shape)
