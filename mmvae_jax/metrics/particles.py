"""Importance weights of particles, and responsibilities of the components of q(z|X) for them."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from mmvae_jax.batch import AnyBatch, Observed, observe
from mmvae_jax.checks import check_count
from mmvae_jax.generative import components_of
from mmvae_jax.inputs.keys import as_key
from mmvae_jax.maths.distributions import responsibilities
from mmvae_jax.maths.weights import Experts, expert_log_probs, mask_of_mixture, observed_experts
from mmvae_jax.model import MMVAE, evaluation
from mmvae_jax.objective import Options, bound_of_batch


def measure_log_weights(model: MMVAE, batch: AnyBatch, key: PRNGKeyArray) -> Float[Array, "c k b"]:
    """Returns the log importance weights of the K particles of every component of q(z|X).

    Args:
      model: an MMVAE; its config gives K, ``beta`` and the rescale factors.
      batch: data and mask.
      key: randomness of the particles.

    Returns:
      ``[c k b]`` in the order of ``config.components``, which are the experts unless
      ``aggregation`` differs; arbitrary where an example does not have the component.

    Raises:
      ValueError: if the batch does not fit the model.

    >>> measure_log_weights(model, batch, jax.random.key(0)).shape
    (2, 3, 5)
    """
    return _log_weights(*evaluation(model), observe(model.config, batch), as_key(key))


def measure_responsibilities(
    model: MMVAE, batch: AnyBatch, key: PRNGKeyArray, *, num_draws: int = 10
) -> Float[Array, "c j"]:
    """Returns the mean responsibility of component j of q(u|X) for draws from component c.

    ``r_j(u) = q_j(u) / sum_i q_i(u)`` over the components i that an example has, averaged over
    draws from q_c and over the examples that have c. Each row sums to 1. The table is the identity
    for components that do not overlap, and constant for equal ones.

    The components are the experts ``q_m(u|x_m)``, or with ``aggregation="mopoe"`` the products of
    all subsets. ``aggregation="poe"`` has one component, and a table of one 1.

    Args:
      model: an MMVAE.
      batch: data and mask; modalities without data count as missing.
      key: randomness of the draws.
      num_draws: number of draws per component and example.

    Returns:
      ``[c j]`` in the order of ``config.components``; NaN in the rows of components that no example
      has.

    Raises:
      ValueError: if the batch does not fit the model, or ``num_draws`` is below 1.

    >>> measure_responsibilities(model, batch, jax.random.key(0)).sum(1).round(3).tolist()
    [1.0, 1.0]
    """
    num_draws = check_count("num_draws", num_draws)
    observed = observe(model.config, batch, allow_absent=True)
    return _responsibilities(*evaluation(model), observed, as_key(key), num_draws)


@partial(jax.jit, static_argnames=("graphdef",))
def _log_weights(graphdef, state, observed: Observed, key) -> Float[Array, "c k b"]:
    model = nnx.merge(graphdef, state, copy=True)
    return bound_of_batch(model, observed, Options(key))[1].log_w


@partial(jax.jit, static_argnames=("graphdef", "num_draws"))
def _responsibilities(graphdef, state, observed: Observed, key, num_draws) -> Float[Array, "c j"]:
    model = nnx.merge(graphdef, state, copy=True)
    family = model.config.family
    components, mask = components_of(model, model.experts(observed.data), observed.mask)
    loc, scale = observed_experts(model.config.axes.shared_part(components), mask)
    noise = family.standard(key, (len(loc), num_draws, *loc.shape[1:]), loc.dtype)
    z = loc[:, None] + scale[:, None] * noise  # [c k b d]
    log_q = expert_log_probs(family, Experts(loc[:, None, None], scale[:, None, None]), z)
    is_there = jnp.broadcast_to(mask_of_mixture(mask)[:, None, None], log_q.shape)
    shares = responsibilities(log_q, is_there).mean(2)  # [j c b]
    total = jnp.where(mask[None], shares, 0).sum(2)
    return (total / mask.sum(1, dtype=total.dtype)[None]).T
