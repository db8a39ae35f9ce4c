"""Pareto k-hat: how heavy the upper tail of importance weights is.

The largest weights are fitted by a generalised Pareto distribution, whose moments of order ``1/k``
and above are infinite (Vehtari et al. 2024, Pareto smoothed importance sampling,
arXiv 1507.02646). The fit is the one of Zhang and Stephens (2009), with the weak prior of Vehtari
et al. (2024, appendix G): ten weights with a shape of 0.5.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SMALLEST_TAIL = 5
#: Weights below exp(-60) of the largest count as equal: single precision still divides by these.
LOG_FLOOR = -60.0
PRIOR_SHAPE, PRIOR_COUNT = 0.5, 10
#: Number of new weights up to which insertion one by one is faster than ``top_k``.
FEW = 16


class Diagnostics(NamedTuple):
    """Diagnostics of the importance weights of an estimate.

    Attributes:
      ess: effective number of particles, ``(sum w)^2 / sum w^2``, between 1 and their number.
      max_weight: share of the largest weight. Near 1, one particle decides the estimate.
      pareto_k: shape k of a generalised Pareto distribution fitted to the largest weights (Vehtari
        et al. 2024). Below 0.5, the weights have a finite variance, and errors fall as
        ``1/sqrt(K)``. Up to 0.7, the estimate is usable. Above ``min(1 - 1/log10(K), 0.7)``, do
        not trust it. inf for K below 25, too few for a fit; -inf if all weights are equal.
    """

    ess: Float[Array, "*t b"]
    max_weight: Float[Array, "*t b"]
    pareto_k: Float[Array, "*t b"]


def tail_size(num_weights: int) -> int:
    """Returns the number of weights in the tail, ``min(S / 5, 3 sqrt(S))``; 0 for fewer than 25.

    >>> tail_size(24), tail_size(100), tail_size(1000)
    (0, 20, 94)
    """
    size = min(num_weights // 5, math.isqrt(9 * num_weights))
    return size if size >= SMALLEST_TAIL else 0


def largest_reliable_k(num_weights: int) -> float:
    """Returns ``min(1 - 1/log10(S), 0.7)``: with a larger k, S weights are too few.

    Vehtari et al. (2024, section 3.2.4). Below 2,200 weights the first term is the smaller one.

    >>> round(largest_reliable_k(100), 2), round(largest_reliable_k(1000), 2)
    (0.5, 0.67)
    """
    return min(1 - 1 / math.log10(max(num_weights, 2)), 0.7)


def keep_largest(
    largest: Float[Array, "t n e"], log_w: Float[Array, "t g e"]
) -> Float[Array, "t n e"]:
    """Returns the n largest of both along the second axis, in descending order.

    Args:
      largest: log weights in descending order.
      log_w: more log weights, in any order.
    """
    num_kept = largest.shape[1]
    if log_w.shape[1] > FEW:
        both = jnp.moveaxis(jnp.concatenate([largest, log_w], 1), 1, -1)
        return jnp.moveaxis(jax.lax.top_k(both, num_kept)[0], -1, 1)

    def insert(kept: Float[Array, "t n e"], new: Float[Array, "t e"]):
        # Larger values stay, the new one takes its place, and smaller values move down by one.
        new = new[:, None]
        above = jnp.concatenate([jnp.full_like(new, jnp.inf), kept], 1)[:, :num_kept]
        return jnp.maximum(kept, jnp.minimum(above, new)), None

    return jax.lax.scan(insert, largest, jnp.moveaxis(log_w, 1, 0))[0]


def pareto_k(largest: Float[Array, "n *b"]) -> Float[Array, "*b"]:
    """Returns the shape k of the tail of weights, given the largest log weights.

    Args:
      largest: the ``tail_size(S) + 1`` largest log weights in descending order. The last one is
        the threshold that the tail is measured from.

    Returns:
      inf for fewer than five weights in the tail. -inf where all of ``largest`` are equal up to
      rounding, which is the lightest tail. inf where a quarter of the tail does not exceed the
      threshold although the largest weight does: a few weights outweigh the others by exp(60).
    """
    if len(largest) <= SMALLEST_TAIL:
        return jnp.full(largest.shape[1:], jnp.inf, largest.dtype)
    flat = largest.reshape(len(largest), -1)
    k = jax.vmap(_shape_of_tail, in_axes=1)(flat)
    return k.reshape(largest.shape[1:])


def _shape_of_tail(largest: Float[Array, " n"]) -> Float[Array, ""]:
    eps = jnp.finfo(largest.dtype).eps
    has_weights = jnp.isfinite(largest[0])  # or else all are -inf, and differences would be NaN
    largest = jnp.maximum(largest, jnp.finfo(largest.dtype).min / 4)
    is_flat = has_weights & (largest[0] - largest[-1] <= 10 * eps * jnp.abs(largest[0]))
    log_w = jnp.maximum(largest - largest[0], LOG_FLOOR)
    excess = jnp.exp(log_w[:-1]) - jnp.exp(log_w[-1])
    count = len(excess)
    quartile = excess[count - int(count / 4 + 0.5)]
    fits = (quartile > 0) & ~is_flat
    shape = _zhang_stephens(jnp.where(fits, excess, 1), jnp.where(fits, quartile, 1))
    shape = (count * shape + PRIOR_COUNT * PRIOR_SHAPE) / (count + PRIOR_COUNT)
    return jnp.where(fits, shape, jnp.where(is_flat, -jnp.inf, jnp.inf))


def _zhang_stephens(x: Float[Array, " n"], quartile: Float[Array, ""]) -> Float[Array, ""]:
    """Returns the posterior mean fit of the shape, averaged over a grid of ``b = -k / scale``.

    Args:
      x: excesses over the threshold, in descending order.
      quartile: first quartile of the excesses.
    """
    eps = jnp.finfo(x.dtype).eps
    num_points = 30 + math.isqrt(len(x))
    point = jnp.arange(1, num_points + 1, dtype=x.dtype) - 0.5
    b = 1 / x[0] + (1 - jnp.sqrt(num_points / point)) / (3 * quartile)
    b = jnp.where(b == 0, eps, b)  # the profile likelihood is continuous at 0, its formula is not

    def shape(b: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.log1p(-b[..., None] * x[*[None] * b.ndim]).mean(-1)

    k = shape(b)
    weights = jax.nn.softmax(len(x) * (jnp.log(-b / k) - k - 1))
    # Rounding of the smallest weights counts where b spans many orders of magnitude.
    weights = jnp.where(weights >= 10 * eps, weights, 0)
    return shape((b * weights).sum() / weights.sum())
