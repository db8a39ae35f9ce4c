"""A model's bound on a batch: the maths core applied to NNX networks."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from mmvae_jax import gradients
from mmvae_jax.backward import Backward
from mmvae_jax.batch import Batch, Observed, observe
from mmvae_jax.bounds import BOUNDS, expert_bounds, normalised_per_expert
from mmvae_jax.config import LOSSES, MMVAEConfig
from mmvae_jax.distributions import FAMILIES, prior_log_prob
from mmvae_jax.estimators import ESTIMATORS
from mmvae_jax.likelihoods import log_likelihood
from mmvae_jax.model import MMVAE, Modules, decode_modality, draws_numbers, reseeded
from mmvae_jax.particles import Inputs
from mmvae_jax.weights import LogWeights, effective_sample_size

AUTO, DENSE = Backward(), Backward("dense")

Metrics = dict[str, Float[Array, ""]]
Noise = Mapping[str, ArrayLike]


class Theta(NamedTuple):
    """What the decoders and the prior are made of."""

    decoders: PyTree
    prior_log_var: Float[Array, " d"]


def value_and_grad(
    model: MMVAE,
    batch: Batch,
    key: PRNGKeyArray | None = None,
    *,
    noise: Noise | None = None,
    backward: Backward = DENSE,
) -> tuple[Metrics, nnx.State]:
    """The mean loss of a batch with other metrics, and its gradient.

    The loss is minus the config's bound, averaged over the examples with at least one modality;
    the gradient is that of the config's estimator. Random layers act as the model's mode says
    (``model.train()``, ``model.eval()``), and the model itself is not changed.

    Args:
      model: an MMVAE.
      batch: data and mask.
      key: randomness of the particles and of random layers.
      noise: ``{modality: [K, b, d]}`` standard draws of the posterior family, in place of the
        key's: ``z = loc + scale noise``.
      backward: which particles the gradient is computed from; static under `jax.jit`.

    Returns:
      metrics: those of `eval_step`, and ``grad_norm``, the gradient's global norm.
      grads: shaped like ``nnx.state(model, nnx.Param)``.

    Raises:
      ValueError: if the batch does not fit the config, or neither key nor noise is given.
    """
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss_of(params):
        merged = nnx.merge(graphdef, params, rest, copy=True)
        return loss_and_metrics(merged, batch, key, noise=noise, backward=backward)

    (_, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    return {**metrics, "grad_norm": optax.tree.norm(grads)}, grads


def loss(
    model: MMVAE,
    batch: Batch,
    key: PRNGKeyArray | None = None,
    *,
    noise: Noise | None = None,
    backward: Backward = DENSE,
) -> Float[Array, ""]:
    """The loss of `value_and_grad` alone, to differentiate as a term of a loss of one's own.

    `jax.grad` and `nnx.grad` of it give the estimator's gradient. The data are constants as
    targets of the likelihoods: no gradient flows into them.
    """
    return loss_and_metrics(model, batch, key, noise=noise, backward=backward)[0]


def loss_and_metrics(
    model: MMVAE,
    batch: Batch,
    key: PRNGKeyArray | None = None,
    *,
    noise: Noise | None = None,
    backward: Backward = DENSE,
) -> tuple[Float[Array, ""], Metrics]:
    """The mean loss and the metrics of a batch; arguments as in `value_and_grad`."""
    observed = observe(model.config, batch)
    bound, terms = bound_of_batch(model, observed, key, noise, backward)
    any_observed = observed.mask.any(0)
    mean_loss = -_mean(bound, any_observed)
    metrics = _metrics(model.config, jax.lax.stop_gradient(terms), observed.mask)
    return mean_loss, {"loss": mean_loss, **metrics}


def bound_of_batch(
    model: MMVAE,
    observed: Observed,
    key: PRNGKeyArray | None,
    noise: Noise | None,
    backward: Backward = DENSE,
) -> tuple[Float[Array, " b"], LogWeights]:
    """The bound of each example, differentiable, and the terms of its log weights."""
    config = model.config
    keys = (None,) * 4 if key is None else jax.random.split(key, 4)
    noise_key, stream_key, call_key, backward_key = keys
    model = reseeded(model, stream_key)
    experts = model.experts(observed.data, key=call_key)
    draws = noise_key if noise is None else _checked_noise(config, noise, experts.loc.shape[1:])
    if draws is None:
        raise ValueError("key and noise are both None: give key=jax.random.key(...), or noise")
    graphdef, decoders, rest = nnx.split(model.decoders, nnx.Param, ...)
    resolved = backward.resolve(
        len(config.modalities), config.K, is_random=draws_numbers(model.decoders)
    )
    return gradients.bound(
        _objective(config, graphdef, resolved),
        Theta(decoders, model.prior_log_var[...]),
        experts,
        Inputs(observed.data, observed.mask, draws, state=(rest, call_key), key=backward_key),
    )


def _objective(
    config: MMVAEConfig, graphdef: nnx.GraphDef, backward: Backward
) -> gradients.Objective:
    family = FAMILIES[config.prior_and_posterior_dist]
    names = LOSSES[config.loss]

    def log_prior(theta: Theta, z: Float[Array, "n d"]) -> Float[Array, " n"]:
        return prior_log_prob(family, theta.prior_log_var, z)

    return gradients.Objective(
        log_likelihood=partial(_log_likelihoods, config, graphdef),
        log_prior=log_prior,
        family=family,
        bound=BOUNDS[names.bound],
        estimator=ESTIMATORS[names.estimator],
        factors=tuple(config.likelihood_factors.values()),
        beta=config.beta,
        num_particles=config.K,
        backward=backward,
    )


def _log_likelihoods(
    config: MMVAEConfig,
    graphdef: nnx.GraphDef,
    theta: Theta,
    state: tuple[PyTree, PRNGKeyArray | None],
    rows: dict[str, Array],
    z: Float[Array, "n d"],
) -> Float[Array, "j n"]:
    rest, key = state
    decoders = nnx.merge(graphdef, theta.decoders, rest, copy=True)
    return log_likelihoods(config, decoders, rows, z, key=key)


def log_likelihoods(
    config: MMVAEConfig,
    decoders: Modules,
    rows: dict[str, Array],
    z: Float[Array, "n d"],
    *,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "j n"]:
    """log p(x_j|z), row by row, of the modalities that `rows` names, in the config's order."""
    return jnp.stack(
        [
            log_likelihood(*config.likelihood(name))(
                decode_modality(config, decoders, name, z, key=key), rows[name]
            )
            for name in config.modalities
            if name in rows
        ]
    )


def _checked_noise(
    config: MMVAEConfig, noise: Noise, shape: tuple[int, ...]
) -> Float[Array, "m k b d"]:
    expected = (config.K, *shape)
    for name in config.modalities:
        given = jnp.shape(noise[name]) if name in noise else None
        if given != expected:
            raise ValueError(
                f"noise[{name!r}] has shape {given}, expected {expected}: K particles of every "
                "example and latent axis"
            )
    return jnp.stack([jnp.asarray(noise[name]) for name in config.modalities])


def _metrics(config: MMVAEConfig, terms: LogWeights, mask: Bool[Array, "m b"]) -> Metrics:
    """Means over examples of what a user watches during training."""
    weights = normalised_per_expert(terms.log_w, mask)
    bounds = expert_bounds(terms.log_w)
    of_expert = jnp.broadcast_to(mask[:, None], terms.log_w.shape)
    metrics = {"kl": _mean_per_example(terms.log_posterior - terms.log_prior, of_expert)}
    for m, name in enumerate(config.modalities):
        metrics[f"bound/{name}"] = _mean(bounds[m], mask[m])
        both = of_expert & mask[m][None, None]
        metrics[f"log_likelihood/{name}"] = _mean_per_example(terms.log_likelihood[m], both)
    metrics["ess"] = _mean(effective_sample_size(weights), mask)
    metrics["max_weight"] = _mean(weights.max(1), mask)
    return metrics


def _mean(values: Float[Array, "*n"], mask: Bool[Array, "*n"]) -> Float[Array, ""]:
    """Mean of the values whose mask is on; 0 if there are none."""
    return jnp.where(mask, values, 0).sum() / jnp.maximum(mask.sum(), 1).astype(values.dtype)


def _mean_per_example(
    values: Float[Array, "m k b"], mask: Bool[Array, "m k b"]
) -> Float[Array, ""]:
    """Mean over examples of the mean over each one's particles."""
    num_particles = mask.sum((0, 1))
    means = jnp.where(mask, values, 0).sum((0, 1)) / jnp.maximum(num_particles, 1)
    return _mean(means.astype(values.dtype), num_particles > 0)
