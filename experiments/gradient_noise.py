"""Signal-to-noise ratio and bias of the encoders' gradient."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

import mmvae_jax as mm
from mmvae_jax.maths.losses import LOSSES


class GradientMoments(NamedTuple):
    """Moments of the encoders' gradient over random particles, for one batch.

    Attributes:
      mean: mean of ``num`` gradients, with all parameters in one vector.
      variance: variance of one gradient, summed over the parameters.
      num: number of gradients drawn.
    """

    mean: Float[Array, " p"]
    variance: Float[Array, ""]
    num: int

    @property
    def signal(self) -> float:
        """Unbiased estimate of the squared norm of the expected gradient."""
        return float(jnp.sum(self.mean**2) - self.variance / self.num)


def measure_gradient_noise(
    model: mm.MMVAE, batch: mm.Batch, key: PRNGKeyArray, *, num: int
) -> dict[str, float]:
    """Returns signal-to-noise ratio and direction of the encoders' gradient of the model's loss.

    Args:
      model: an MMVAE.
      batch: examples, the same for all gradients.
      key: PRNG key of the particles.
      num: number of gradients to draw.

    Returns:
      ``signal_to_noise``: ``|E g| / sqrt(E |g - E g|^2)``, the ratio of Rainforth et al. (2018) for
      the whole vector. ``cosine``: cosine of E g and the expected gradient of the unbiased
      estimator of the same bound. The estimate of ``cosine`` can slightly exceed 1, because its
      norms are corrected for noise.
    """
    bound = LOSSES[model.config.loss].bound
    estimator = "reparam" if bound == "elbo" else "mixture_dreg"
    unbiased = next(name for name, loss in LOSSES.items() if loss == (bound, estimator))
    own_key, unbiased_key = jax.random.split(key)
    own = encoder_gradients(model, batch, own_key, num)
    exact = encoder_gradients(with_loss(model, unbiased), batch, unbiased_key, num)
    scale = np.sqrt(max(own.signal, 0) * max(exact.signal, 0))
    return {
        "signal_to_noise": float(np.sqrt(max(own.signal, 0) / float(own.variance))),
        "cosine": float(jnp.vdot(own.mean, exact.mean) / scale) if scale else float("nan"),
    }


def with_loss(model: mm.MMVAE, loss: str) -> mm.MMVAE:
    """Returns a copy of the model with another loss in its config."""
    copy = nnx.clone(model)
    copy.config = model.config.replace(loss=loss)
    return copy


def encoder_gradients(
    model: mm.MMVAE, batch: mm.Batch, key: PRNGKeyArray, num: int
) -> GradientMoments:
    """Returns the moments of ``num`` gradients, computed in one compiled loop."""
    mean, variance = _moments(*nnx.split(model), batch, key, num)
    return GradientMoments(mean, variance, num)


@partial(jax.jit, static_argnames=("graphdef", "num"))
def _moments(
    graphdef: nnx.GraphDef, state: nnx.State, batch: mm.Batch, key: PRNGKeyArray, num: int
) -> tuple[Float[Array, " p"], Float[Array, ""]]:
    origin_key, draws_key = jax.random.split(key)

    def gradient(key: PRNGKeyArray) -> Float[Array, " p"]:
        model = nnx.merge(graphdef, state, copy=True)
        _, grads = mm.value_and_grad(model, batch, key)
        return ravel_pytree(nnx.to_pure_dict(grads)["encoders"])[0]

    # Deviations from one extra gradient: squares of the gradients themselves would lose digits to
    # their common mean.
    origin = gradient(origin_key)

    def add(total: tuple[Array, Array], key: PRNGKeyArray):
        deviation = gradient(key) - origin
        return (total[0] + deviation, total[1] + jnp.sum(deviation**2)), None

    zero = (jnp.zeros_like(origin), jnp.zeros((), origin.dtype))
    (deviation, squares), _ = jax.lax.scan(add, zero, jax.random.split(draws_key, num))
    mean = deviation / num
    return origin + mean, (squares - num * jnp.sum(mean**2)) / (num - 1)
