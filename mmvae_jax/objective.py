"""A model's bound on a batch: the maths core applied to NNX networks."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from mmvae_jax.batch import AnyBatch, Observed, observe
from mmvae_jax.config import LOSSES, MMVAEConfig
from mmvae_jax.decoding import Rows, likelihood_traits, log_likelihoods
from mmvae_jax.maths import gradients
from mmvae_jax.maths.backward import Backward
from mmvae_jax.maths.bounds import BOUNDS
from mmvae_jax.maths.collectives import ALONE, Shards
from mmvae_jax.maths.distributions import family_of, prior_log_prob
from mmvae_jax.maths.estimators import ESTIMATORS
from mmvae_jax.maths.particles import Inputs
from mmvae_jax.means import Means, Metrics, mean_over_examples, report_means
from mmvae_jax.model import MMVAE, draws_numbers, reseeded
from mmvae_jax.overrides import LikelihoodParams, Overrides, numbers
from mmvae_jax.stacking import Group, Stacked, stack
from mmvae_jax.training.mesh import Layout, over_mesh

AUTO, DENSE = Backward(), Backward("dense")

Noise = Mapping[str, ArrayLike]


class Theta(NamedTuple):
    """What the decoders, group by group, the prior and the likelihoods are made of."""

    decoders: tuple[PyTree, ...]
    prior_log_var: Float[Array, " d"]
    likelihood_params: LikelihoodParams


def value_and_grad(
    model: MMVAE,
    batch: AnyBatch,
    key: PRNGKeyArray | None = None,
    *,
    noise: Noise | None = None,
    overrides: Overrides | None = None,
    backward: Backward = DENSE,
    layout: Layout | None = None,
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
      overrides: numbers to use in place of the config's.
      backward: which particles the gradient is computed from; static under ``jax.jit``.
      layout: devices to spread the work over, each with its part of the examples and particles.
        The result is that of one device, up to rounding, for networks without random layers.

    Returns:
      metrics: those of ``eval_step``; ``grad_norm``, the gradient's global norm;
        ``backward_share``, the share of the particles that the gradient is computed from, and
        ``dropped_mass``, the share of the weight that the others have.
      grads: shaped like ``nnx.state(model, nnx.Param)``.

    Raises:
      ValueError: if the batch does not fit the config, if neither key nor noise is given, or if
        the devices cannot share examples and particles equally.

    >>> metrics, grads = jax.jit(mm.value_and_grad)(model, batch, jax.random.key(0))
    >>> grads["prior_log_var"][...].shape
    (2,)
    """
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def of_device(params, rest, batch, shared, shards):
        key, overrides = shared

        def loss_of(params):
            merged = nnx.merge(graphdef, params, rest, copy=True)
            return loss_and_metrics(
                merged,
                batch,
                key,
                noise=noise,
                overrides=overrides,
                backward=backward,
                shards=shards,
            )

        (_, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        return metrics, grads

    if layout is None:
        metrics, grads = of_device(params, rest, batch, (key, overrides), ALONE)
    elif key is None or noise is not None:
        raise ValueError("noise is given, or key is None: on a mesh give key, and no noise")
    else:
        on_all = over_mesh(layout, of_device, differentiated=True)
        metrics, grads = on_all(params, rest, batch, (key, overrides))
    return {**metrics, "grad_norm": optax.tree.norm(grads)}, grads


def loss(
    model: MMVAE,
    batch: AnyBatch,
    key: PRNGKeyArray | None = None,
    *,
    noise: Noise | None = None,
    overrides: Overrides | None = None,
    backward: Backward = DENSE,
) -> Float[Array, ""]:
    """The loss of ``value_and_grad`` alone, to differentiate as a term of a loss of one's own.

    ``jax.grad`` and ``nnx.grad`` of it give the estimator's gradient. The data are constants as
    targets of the likelihoods: no gradient flows into them.

    >>> def penalised(model):
    ...     squares = [(w**2).sum() for w in jax.tree.leaves(nnx.state(model, nnx.Param))]
    ...     return mm.loss(model, batch, jax.random.key(0)) + 1e-4 * sum(squares)
    >>> nnx.jit(nnx.grad(penalised))(model)["prior_log_var"][...].shape
    (2,)
    """
    return loss_and_metrics(model, batch, key, noise=noise, overrides=overrides, backward=backward)[
        0
    ]


def loss_and_metrics(
    model: MMVAE,
    batch: AnyBatch,
    key: PRNGKeyArray | None = None,
    *,
    noise: Noise | None = None,
    overrides: Overrides | None = None,
    backward: Backward = DENSE,
    shards: Shards = ALONE,
) -> tuple[Float[Array, ""], Metrics]:
    """The mean loss and the metrics of a batch; arguments as in ``value_and_grad``.

    On a mesh the metrics are those of all examples, and the gradient of the loss is the device's
    part of the whole gradient.
    """
    means = loss_and_means(
        model, batch, key, noise=noise, overrides=overrides, backward=backward, shards=shards
    )
    whole = shards.sum_over_examples(jax.lax.stop_gradient(means))
    loss = means["loss"]._replace(weight=whole["loss"].weight).value
    return loss, {name: mean.value for name, mean in whole.items()}


def loss_and_means(
    model: MMVAE,
    batch: AnyBatch,
    key: PRNGKeyArray | None = None,
    *,
    noise: Noise | None = None,
    overrides: Overrides | None = None,
    backward: Backward = DENSE,
    shards: Shards = ALONE,
) -> Means:
    """The loss, differentiable, and the metrics of the device's examples."""
    observed = observe(model.config, batch)
    bound, report = bound_of_batch(model, observed, key, noise, overrides, backward, shards)
    mask, weight = observed.mask, observed.weight
    means = report_means(model.config, jax.lax.stop_gradient(report), mask, weight)
    return {"loss": mean_over_examples(-bound, mask.any(0), weight), **means}


def bound_of_batch(
    model: MMVAE,
    observed: Observed,
    key: PRNGKeyArray | None,
    noise: Noise | None,
    overrides: Overrides | None = None,
    backward: Backward = DENSE,
    shards: Shards = ALONE,
) -> tuple[Float[Array, " b"], gradients.Report]:
    """The bound of each example, differentiable, and what there is to tell about it."""
    config = model.config
    keys = (None,) * 4 if key is None else jax.random.split(key, 4)
    noise_key, stream_key, call_key, draw_key = keys
    stream_key, call_key = shards.own_key(stream_key), shards.own_key(call_key)
    model = reseeded(model, stream_key)
    is_random = draws_numbers(model.decoders)
    num_particles = shards.num_own_particles(config.K, is_random=is_random)
    backward = backward.resolve(len(config.modalities), config.K, is_random=is_random)
    experts = model.experts(observed.data, key=call_key, stacking=backward.stacking)
    shape = (num_particles, *experts.loc.shape[1:])
    draws = noise_key if noise is None else _checked_noise(config, noise, shape)
    if draws is None:
        raise ValueError("key and noise are both None: give key=jax.random.key(...), or noise")
    given = numbers(config, overrides, experts.loc.dtype)
    traits = likelihood_traits(config, given.likelihood_params)
    groups, stacked = stack(model.decoders, traits, backward.stacking)
    return gradients.bound(
        _objective(config, groups, backward, num_particles, shards),
        Theta(stacked.params, model.prior_log_var[...], given.likelihood_params),
        experts,
        Inputs(
            observed.data,
            observed.mask,
            draws,
            given.factors,
            given.beta,
            state=(stacked.rest, call_key),
            key=draw_key,
        ),
    )


def _objective(
    config: MMVAEConfig,
    groups: tuple[Group, ...],
    backward: Backward,
    num_particles: int,
    shards: Shards,
) -> gradients.Objective:
    family = family_of(config.prior_and_posterior_dist)
    names = LOSSES[config.loss]

    def log_likelihood(
        theta: Theta, state: tuple[Any, PRNGKeyArray | None], rows: Rows, z: Float[Array, "g e d"]
    ) -> Float[Array, "j g e"]:
        rest, key = state
        stacked = Stacked(theta.decoders, rest)
        params = theta.likelihood_params
        return log_likelihoods(config, groups, stacked, rows, z, key, backward.stacking, params)

    def log_prior(theta: Theta, z: Float[Array, "g e d"]) -> Float[Array, "g e"]:
        return prior_log_prob(family, theta.prior_log_var, z)

    return gradients.Objective(
        log_likelihood=log_likelihood,
        log_prior=log_prior,
        family=family,
        bound=BOUNDS[names.bound],
        estimator=ESTIMATORS[names.estimator],
        num_particles=num_particles,
        backward=backward,
        shards=shards,
    )


def _checked_noise(
    config: MMVAEConfig, noise: Noise, expected: tuple[int, ...]
) -> Float[Array, "m k b d"]:
    for name in config.modalities:
        given = jnp.shape(noise[name]) if name in noise else None
        if given != expected:
            raise ValueError(
                f"noise[{name!r}] has shape {given}, expected {expected}: K particles of every "
                "example and latent axis"
            )
    return jnp.stack([jnp.asarray(noise[name]) for name in config.modalities])
