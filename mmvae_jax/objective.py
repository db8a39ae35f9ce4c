"""The loss of a model on a batch, its gradient and its metrics."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from mmvae_jax.batch import AnyBatch, Observed, observe
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.generative import components_of, log_likelihoods, split_theta
from mmvae_jax.inputs.keys import as_optional_key
from mmvae_jax.maths import gradients
from mmvae_jax.maths.backward import Backward
from mmvae_jax.maths.bounds import BOUNDS, expert_bounds, normalised_per_expert
from mmvae_jax.maths.collectives import ALONE, Shards
from mmvae_jax.maths.estimators import ESTIMATORS
from mmvae_jax.maths.losses import LOSSES
from mmvae_jax.maths.means import (
    Mean,
    Means,
    Minimum,
    mean_over_examples,
    mean_over_experts_and_examples,
    over_devices,
    weighted,
)
from mmvae_jax.maths.particles import Inputs, draw_experts
from mmvae_jax.maths.prior import prior_log_prob
from mmvae_jax.maths.problem import Objective
from mmvae_jax.maths.weights import effective_sample_size
from mmvae_jax.model import MMVAE, tile_size
from mmvae_jax.networks.calls import draws_numbers, has_convolutions, reseeded
from mmvae_jax.overrides import Overrides, numbers

#: The default of every function that differentiates a bound (``loss``, ``value_and_grad``,
#: ``train_step``, ``fit``), so that the same batch and key give the same gradient everywhere. It is
#: the fastest choice at full precision of the loss; ``Backward("dense")`` is exact at any size.
AUTO = Backward()

Metrics = dict[str, Float[Array, ""]]
Noise = Mapping[str, ArrayLike]

BACKWARD_METRICS = ("backward_share", "dropped_mass")
MODALITY_METRICS = ("bound", "log_likelihood")


class Options(NamedTuple):
    """The options of a loss, behind the keywords of the public functions; a pytree.

    Attributes:
      key: randomness of the particles and of random layers.
      noise: standard draws in place of the key's.
      overrides: numbers in place of the config's.
      backward: choice of the particles that the gradient is computed from.
    """

    key: PRNGKeyArray | None = None
    noise: Noise | None = None
    overrides: Overrides | None = None
    backward: Backward = AUTO


def value_and_grad(
    model: MMVAE,
    batch: AnyBatch,
    key: PRNGKeyArray | None = None,
    *,
    noise: Noise | None = None,
    overrides: Overrides | None = None,
    backward: Backward = AUTO,
) -> tuple[Metrics, nnx.State]:
    """Returns the metrics of a batch, the mean loss among them, and the gradient of the loss.

    The loss is minus the config's bound, averaged over the examples with at least one modality;
    the gradient is that of the config's estimator. Random layers act as the model's mode says
    (``model.train()``, ``model.eval()``), and the model itself is not changed.

    Args:
      model: an MMVAE.
      batch: examples.
      key: randomness of the particles and of random layers.
      noise: ``{component: [K, b, d]}`` standard draws of the posterior family, in place of the
        key's: ``z = loc + scale noise``.
      overrides: numbers to use in place of the config's.
      backward: choice of the particles that the gradient is computed from; static under
        ``jax.jit``.

    Returns:
      Metrics and gradient. The metrics are those of ``eval_step``; ``grad_norm``, the global norm
      of the gradient; ``backward_share``, the share of the particles that the gradient is computed
      from; and ``dropped_mass``, the share of the weight that the other particles carry. The
      gradient is shaped like ``nnx.state(model, nnx.Param)``.

    Raises:
      ValueError: if the batch does not fit the config, or if neither key nor noise is given.

    >>> metrics, grads = jax.jit(mm.value_and_grad)(model, batch, jax.random.key(0))
    >>> grads["prior_log_var"][...].shape
    (2,)
    """
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    options = Options(as_optional_key(key), noise, overrides, backward)
    gradient = jax.value_and_grad(loss_of_params, has_aux=True)
    (_, metrics), grads = gradient(params, rest, batch, options, ALONE, graphdef=graphdef)
    return {**metrics, "grad_norm": optax.tree.norm(grads)}, grads


def loss(
    model: MMVAE,
    batch: AnyBatch,
    key: PRNGKeyArray | None = None,
    *,
    noise: Noise | None = None,
    overrides: Overrides | None = None,
    backward: Backward = AUTO,
) -> Float[Array, ""]:
    """Returns the loss of ``value_and_grad`` only, for use as one term of a custom loss.

    Its ``jax.grad`` and ``nnx.grad`` give the estimator's gradient. The data are constants as
    targets of the likelihoods: no gradient flows into them.

    Args:
      model: an MMVAE.
      batch: examples.
      key: randomness of the particles and of random layers.
      noise: standard draws in place of the key's, as in ``value_and_grad``.
      overrides: numbers to use in place of the config's.
      backward: choice of the particles that the gradient is computed from.

    Raises:
      ValueError: if the batch does not fit the config, or if neither key nor noise is given.

    >>> def penalised(model):
    ...     squares = [(w**2).sum() for w in jax.tree.leaves(nnx.state(model, nnx.Param))]
    ...     return mm.loss(model, batch, jax.random.key(0)) + 1e-4 * sum(squares)
    >>> nnx.jit(nnx.grad(penalised))(model)["prior_log_var"][...].shape
    (2,)
    """
    options = Options(as_optional_key(key), noise, overrides, backward)
    return reduced(batch_means(model, batch, options))[0]


def loss_of_params(
    params: PyTree,
    rest: PyTree,
    batch: AnyBatch,
    options: Options,
    shards: Shards,
    *,
    graphdef: nnx.GraphDef,
) -> tuple[Float[Array, ""], Metrics]:
    """Returns loss and metrics of a model in parts, for differentiation by the first argument."""
    model = nnx.merge(graphdef, params, rest, copy=True)
    return reduced(batch_means(model, batch, options, shards), shards)


def reduced(means: Means, shards: Shards = ALONE) -> tuple[Float[Array, ""], Metrics]:
    """Returns loss and metrics over the examples of all devices.

    The derivative of the loss is the device's part of the whole: its own total, over the weight of
    all examples.
    """
    whole = over_devices(jax.lax.stop_gradient(means), shards)
    own, of_all = means["loss"], whole["loss"]
    assert isinstance(own, Mean)
    assert isinstance(of_all, Mean)
    loss = own._replace(weight=of_all.weight).value
    return loss, {name: mean.value for name, mean in whole.items()}


def batch_means(model: MMVAE, batch: AnyBatch, options: Options, shards: Shards = ALONE) -> Means:
    """Returns the loss, differentiable, and the metrics of the device's examples."""
    observed = observe(model.config, batch)
    bound, report = bound_of_batch(model, observed, options, shards)
    return {
        "loss": Mean(-bound, observed.weights(bound.dtype).sum()),
        **_report_means(model.config, jax.lax.stop_gradient(report), observed),
    }


def bound_of_batch(
    model: MMVAE, observed: Observed, options: Options, shards: Shards = ALONE
) -> tuple[Float[Array, ""], gradients.Report]:
    """Returns the weighted sum of the bounds, differentiable, and each bound with diagnostics."""
    config, key = model.config, options.key
    sources, key = _drawn_experts(config, observed.mask, key, shards)
    keys = (None,) * 4 if key is None else jax.random.split(key, 4)
    noise_key, stream_key, call_key, draw_key = keys
    model, call_key = reseeded(model, shards.own_key(stream_key)), shards.own_key(call_key)
    is_random = draws_numbers(model.decoders)
    num_particles = shards.num_own_particles(config.K, is_random=is_random)
    experts = model.experts(observed.data, key=call_key)
    experts, available = components_of(model, experts, observed.mask)
    shape = (num_particles, *experts.loc.shape[1:])
    draws = noise_key if options.noise is None else _checked_noise(config, options.noise, shape)
    if draws is None:
        raise ValueError("key and noise are both None: give key=jax.random.key(...), or noise")
    given = numbers(config, options.overrides, experts.loc.dtype)
    graphdef, theta, rest = split_theta(model, given.likelihood_params)
    backward = options.backward.resolve(
        config.experts_per_step or len(available),
        config.K,
        shards.num_all_examples(experts.loc.shape[1]),
        tile_size=tile_size(model),
        is_random=is_random,
    )
    objective = _objective(
        config,
        graphdef,
        num_particles=num_particles,
        backward=backward,
        # Keeping what convolutions need for a pass backward costs more than it saves.
        in_groups=not has_convolutions(model.decoders),
        shards=shards,
    )
    inputs = Inputs(
        *(observed.data, observed.mask, draws),
        *(given.factors, given.beta, observed.weights(experts.loc.dtype)),
        state=(rest, call_key),
        key=draw_key,
        sources=sources,
        components=available,
    )
    return gradients.bound(objective, theta, experts, inputs)


def _objective(config: MMVAEConfig, graphdef: nnx.GraphDef, **settings: Any) -> Objective:
    """Returns densities, bound and estimator of a config, with these settings of the passes."""
    family, axes, names = config.family, config.axes, LOSSES[config.loss]
    return Objective(
        log_likelihood=partial(log_likelihoods, config, graphdef),
        log_prior=lambda theta, z, source: prior_log_prob(family, axes, theta.prior, z, source),
        family=family,
        axes=axes,
        bound=BOUNDS[names.bound],
        estimator=ESTIMATORS[names.estimator],
        **settings,
    )


def _drawn_experts(
    config: MMVAEConfig, mask: Bool[Array, "m b"], key: PRNGKeyArray | None, shards: Shards
) -> tuple[Int[Array, "s b"] | None, PRNGKeyArray | None]:
    """Returns the experts to draw from, None for all, and a key for everything else."""
    num = config.experts_per_step
    if num is None or num == len(config.modalities):
        return None, key
    if key is None:
        raise ValueError(f"key is None, but experts_per_step is {num}: give jax.random.key(...)")
    key, choice_key = jax.random.split(key)
    return draw_experts(choice_key, mask, num, shards.example_numbers(mask.shape[1])), key


def metric_names(config: MMVAEConfig) -> tuple[str, ...]:
    """Returns the names of the metrics of an evaluation."""
    bounds = (f"bound/{name}" for name in config.components)
    likelihoods = (f"log_likelihood/{name}" for name in config.modalities)
    return ("loss", "kl", *bounds, *likelihoods, "ess", "max_weight", "min_scale")


def _report_means(config: MMVAEConfig, report: gradients.Report, observed: Observed) -> Means:
    """Returns the metrics other than the loss, as means over examples."""
    mask, weight, terms = report.drawn, observed.weight, report.means
    mean = partial(mean_over_examples, weight=weight)
    mean_of_experts = partial(mean_over_experts_and_examples, weight=weight)
    w = normalised_per_expert(report.log_w, mask)
    bounds = expert_bounds(report.log_w)
    means: Means = {"kl": mean_of_experts(terms.log_posterior - terms.log_prior, mask)}
    for c, name in enumerate(config.components):
        means[f"bound/{name}"] = mean(bounds[c], mask[c])
    for m, name in enumerate(config.modalities):
        both = mask & observed.mask[m][None]
        means[f"log_likelihood/{name}"] = mean_of_experts(terms.log_likelihood[m], both)
    means["ess"] = mean(effective_sample_size(w), mask)
    means["max_weight"] = mean(w.max(1), mask)
    means["min_scale"] = Minimum(jnp.where(report.available, report.min_scale, jnp.inf).min())
    means["backward_share"] = mean(report.backward_share, mask)
    dropped, mass = (weighted(x, weight).sum() for x in (report.dropped_mass, report.mass))
    means["dropped_mass"] = Mean(dropped, mass)
    return means


def _checked_noise(
    config: MMVAEConfig, noise: Noise, expected: tuple[int, ...]
) -> Float[Array, "m k b d"]:
    for name in config.components:
        given = jnp.shape(noise[name]) if name in noise else None
        if given != expected:
            raise ValueError(
                f"noise[{name!r}] has shape {given}, expected {expected}: K particles of every "
                "example and latent axis"
            )
    return jnp.stack([jnp.asarray(noise[name]) for name in config.components])
