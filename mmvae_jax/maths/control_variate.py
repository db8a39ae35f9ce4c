"""The coefficient of a control variate, estimated from the other examples of the batch.

A gradient ``g`` with a control variate ``Delta``, whose mean is zero, may be replaced by
``g + c Delta``. The mean stays the same for every c that is independent of the example's noise.
The variance is smallest at ``c = -Cov(g, Delta) / Var(Delta)``.

For ``mixture_dreg`` that c depends on the scale s of the posterior. At c = 1 the noise of an
expert's location gradient is of order 1 / s, at c = 0 of order s. Relative to the width of the
target the best c is near s^2 where s is small, and near 1 where it is not. Examples of a batch
differ in s by orders of magnitude, and an example with a collapsed scale must neither decide c for
the others nor be hurt by their c. The regression below is therefore local in log s, and its slope
is of ``g`` on ``s^2 Delta``.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmvae_jax.maths.collectives import ALONE, Shards

#: Centres of the bins of scales, in octaves: an example belongs to the two bins next to it. They
#: are wide, because s^2 already follows the change of c within a bin, and few examples are noise.
BIN_WIDTH = 4
BINS = tuple(octave / BIN_WIDTH for octave in range(-20, 5, BIN_WIDTH))
#: Number of other examples in the bins of an example, up to their weights, below which c is 0.
MIN_OTHERS = 6


def coefficients_from_others(
    gradient: Float[Array, "m b d"],
    variate: Float[Array, "m b d"],
    scale: Float[Array, "m b d"],
    counts: Bool[Array, "m b"],
    shards: Shards = ALONE,
) -> Float[Array, "m b d"]:
    """Returns c of every expert, example and axis, from 0 to 1.

    It depends on an example's scale, and on the noise of other examples only.

    Args:
      gradient: gradient g of each example, before its weight in the batch.
      variate: control variate of g.
      scale: scale of the posterior that both belong to.
      counts: False for examples without such an expert.
      shards: mesh axes that the examples are spread over.
    """
    smallest = 2.0 ** (BINS[0] * BIN_WIDTH)
    scale = jnp.maximum(jnp.where(counts[..., None], scale, 1), smallest)
    # Relative to the scale, g and Delta of different scales are comparable: noise of order s^2 and
    # of order 1. Weighted least squares of g on s^2 Delta, with weights 1 / s^2 and an intercept,
    # because the mean of g is much larger than its noise: d(log scale) has a mean near -1.
    y, delta = gradient * scale, variate * scale
    weight = scale**-2
    octaves = jnp.clip(jnp.log2(scale) / BIN_WIDTH, BINS[0], BINS[-1])
    bins = jnp.asarray(BINS, scale.dtype).reshape(-1, 1, 1, 1)
    near = jnp.maximum(1 - jnp.abs(octaves[None] - bins), 0) * counts[None, :, :, None]
    moments = jnp.stack([jnp.ones_like(y), weight, delta, weight * y, delta * y, delta**2 / weight])
    own = near[None] * moments[:, None]  # [moment bin m b d]
    others = shards.sum_over_examples(own.sum(3, keepdims=True)) - own
    num, total, sum_x, sum_y, sum_xy, sum_xx = others
    mean_x = sum_x / jnp.where(total > 0, total, 1)
    covariance = (near * (sum_xy - mean_x * sum_y)).sum(0)
    variance = (near * (sum_xx - mean_x * sum_x)).sum(0)
    is_known = (jnp.where(near > 0, num, 0).sum(0) >= MIN_OTHERS) & (variance > 0)
    slope = -covariance / jnp.where(is_known, variance, 1)
    return jnp.where(is_known, jnp.clip(scale**2 * slope, 0, 1), 0)
