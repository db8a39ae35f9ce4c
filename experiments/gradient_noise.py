"""How noisy the gradient of the encoders is, and whether it points where it should."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

import mmvae_jax as mm
from mmvae_jax.config import LOSSES


class Moments(NamedTuple):
    """Of the encoders' gradient over the particles of one batch.

    Attributes:
      mean: of ``num`` gradients, all parameters in a vector.
      variance: sum over the parameters of the variance of one gradient.
      num: how many gradients were drawn.
    """

    mean: Float[Array, " p"]
    variance: Float[Array, ""]
    num: int

    @property
    def signal(self) -> float:
        """Squared norm of the expected gradient: that of the mean less what noise adds to it."""
        return float(jnp.sum(self.mean**2) - self.variance / self.num)


def measure_gradient_noise(
    model: mm.MMVAE, batch: mm.Batch, key: PRNGKeyArray, *, num: int
) -> dict[str, float]:
    """Returns signal to noise and direction of the encoders' gradient under the model's loss.

    Args:
      model: an MMVAE.
      batch: examples, the same for all gradients.
      key: randomness of the particles.
      num: gradients to draw.

    Returns:
      ``signal_to_noise``, ``|E g| / sqrt(E |g - E g|^2)`` (the ratio of Rainforth et al. 2018, of
      the whole vector); ``cosine``, of E g with the expected gradient of the unbiased estimator of
      the same bound, free of the noise's bias, so that it may pass 1 a little.
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
    """Returns a copy of a model that is trained with another loss."""
    copy = nnx.clone(model)
    copy.config = model.config.replace(loss=loss)
    return copy


def encoder_gradients(model: mm.MMVAE, batch: mm.Batch, key: PRNGKeyArray, num: int) -> Moments:
    """Returns the moments of so many gradients, in one compiled loop."""
    mean, variance = _moments(*nnx.split(model), batch, key, num)
    return Moments(mean, variance, num)


@partial(jax.jit, static_argnames=("graphdef", "num"))
def _moments(
    graphdef: nnx.GraphDef, state: nnx.State, batch: mm.Batch, key: PRNGKeyArray, num: int
) -> tuple[Float[Array, " p"], Float[Array, ""]]:
    origin_key, draws_key = jax.random.split(key)

    def gradient(key: PRNGKeyArray) -> Float[Array, " p"]:
        model = nnx.merge(graphdef, state, copy=True)
        _, grads = mm.value_and_grad(model, batch, key)
        return ravel_pytree(nnx.to_pure_dict(grads)["encoders"])[0]

    # Deviations from one more gradient, so that squares lose no digits to a common mean.
    origin = gradient(origin_key)

    def add(total: tuple[Array, Array], key: PRNGKeyArray):
        deviation = gradient(key) - origin
        return (total[0] + deviation, total[1] + jnp.sum(deviation**2)), None

    zero = (jnp.zeros_like(origin), jnp.zeros((), origin.dtype))
    (deviation, squares), _ = jax.lax.scan(add, zero, jax.random.split(draws_key, num))
    mean = deviation / num
    return origin + mean, (squares - num * jnp.sum(mean**2)) / (num - 1)
