"""Normalising flows of latents: couplings of rational-quadratic splines, by maximum likelihood."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from mmvae_jax.batch import AnyBatch
from mmvae_jax.checks import check_count, check_positive
from mmvae_jax.inputs.keys import as_key
from mmvae_jax.maths.distributions import Family
from mmvae_jax.model import MMVAE
from mmvae_jax.networks.mlp import MLPDecoder
from mmvae_jax.samplers.aggregate import (
    AggregatePosterior,
    aggregate_posterior,
    draw_aggregate,
    every_example,
)
from mmvae_jax.samplers.latent_sampler import LatentSampler, sampler_of

#: Splines act on standardised latents from minus this to this, and are linear outside.
_RANGE = 5.0
#: Largest norm of a gradient: an outlier among the latents changes the flow by little.
_CLIP_NORM = 10.0


class Flow(nnx.Module):
    """The density of ``u = loc + scale * f(e)``, where e is standard normal and f invertible.

    f is a chain of couplings (Dinh et al. 2017). Each moves about half of the axes, by splines
    (Durkan et al. 2019) whose parameters are functions of the other axes. A new flow is normal.

    Args:
      loc: mean of the latents.
      scale: standard deviation of the latents.
      num_layers: number of couplings.
      num_bins: number of bins of a spline.
      hidden: widths of the layers of the networks.
      rngs: source of the initial parameters.
    """

    def __init__(
        self,
        loc: Float[Array, " d"],
        scale: Float[Array, " d"],
        *,
        num_layers: int,
        num_bins: int,
        hidden: Sequence[int],
        rngs: nnx.Rngs,
    ):
        dim = len(loc)
        self.loc, self.scale = nnx.Variable(loc), nnx.Variable(scale)
        shape = (dim, 3 * num_bins + 1)
        self.conditioners = nnx.List(
            [MLPDecoder(dim, shape, hidden=hidden, rngs=rngs) for _ in range(num_layers)]
        )
        for conditioner in self.conditioners:  # splines with parameters 0 are the identity
            conditioner.out.kernel[...] = jnp.zeros_like(conditioner.out.kernel[...])

    def distribution(self) -> distrax.Distribution:
        """Returns the distribution of u, with log densities and draws."""
        loc, scale = self.loc[...], self.scale[...]
        spline = partial(distrax.RationalQuadraticSpline, range_min=-_RANGE, range_max=_RANGE)
        masks = fixed_axes(len(loc), len(self.conditioners))
        couplings = [
            distrax.MaskedCoupling(mask, _for_any_rank(conditioner), spline)
            for mask, conditioner in zip(masks, self.conditioners, strict=True)
        ]
        standard = distrax.MultivariateNormalDiag(jnp.zeros_like(loc), jnp.ones_like(scale))
        affine = distrax.Block(distrax.ScalarAffine(loc, scale), 1)
        return distrax.Transformed(standard, distrax.Chain([affine, *couplings]))


def _for_any_rank(network: MLPDecoder) -> Callable[..., Any]:
    """Returns the network for arrays ``[*n d]``: DistraX draws single latents, under vmap."""
    return lambda u: network(u.reshape(-1, u.shape[-1])).reshape(*u.shape, -1)


def fixed_axes(dim: int, num_layers: int) -> list[Bool[np.ndarray, " d"]]:
    """Returns True for the axes that each coupling leaves as they are.

    Two couplings in turn split the axes by one binary digit of their numbers, so that every two
    axes are on different sides of some coupling (Müller et al. 2019, "Neural importance sampling").
    """
    num_digits = max(1, math.ceil(math.log2(dim)))
    digits = [layer // 2 % num_digits for layer in range(num_layers)]
    axes = np.arange(dim)
    return [(axes >> digit) % 2 == layer % 2 for layer, digit in enumerate(digits)]


class Training(NamedTuple):
    """Settings of the training of a flow; static.

    Attributes:
      num_steps: number of steps.
      batch_size: number of latents per step.
      learning_rate: first learning rate, which decays to 0 by a cosine.
    """

    num_steps: int
    batch_size: int
    learning_rate: float


def fit_flow(
    model: MMVAE,
    data: AnyBatch,
    key: PRNGKeyArray,
    *,
    num_layers: int = 8,
    num_bins: int = 8,
    hidden: Sequence[int] = (64, 64),
    num_steps: int = 2000,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
) -> LatentSampler:
    """Fits a normalising flow to the aggregate posterior of data, by maximum likelihood.

    Every step draws new latents from ``q(u) = 1/n sum_b q(u|X_b)``: random examples, and one of the
    observed experts of each.

    Args:
      model: a trained MMVAE.
      data: examples, complete or incomplete. Examples that miss everything do not count.
      key: randomness of the initial parameters and of the draws.
      num_layers: number of couplings; give at least 2, so that all axes are transformed.
      num_bins: number of bins of a spline.
      hidden: widths of the layers of the networks that give the splines' parameters.
      num_steps: number of steps of Adam.
      batch_size: number of latents per step.
      learning_rate: first learning rate, which decays to 0 by a cosine.

    Returns:
      The sampler, whose ``shared`` is the ``Flow``.

    Raises:
      ValueError: if a setting is out of range, the data do not fit the model, or the flow's
        density becomes NaN.

    >>> sampler = mm.fit_flow(model, batch, jax.random.key(0), num_layers=2, num_steps=2)
    >>> mm.decode(model, sampler.sample(jax.random.key(1), 7))["sound"].shape
    (7, 4)
    """
    training = Training(
        check_count("num_steps", num_steps),
        check_count("batch_size", batch_size),
        check_positive("learning_rate", learning_rate),
    )
    sizes = {"num_layers": num_layers, "num_bins": num_bins}
    sizes = {field: check_count(field, value) for field, value in sizes.items()}
    hidden = [check_count("hidden", width) for width in hidden]
    family, posterior = model.config.family, aggregate_posterior(model, data)
    first_key, init_key, train_key = jax.random.split(as_key(key), 3)
    num_draws = math.ceil(1000 / posterior.num_examples)  # enough for two moments
    u = draw_aggregate(posterior, family, every_example(posterior, num_draws), first_key)
    flow = Flow(u.mean(0), u.std(0), **sizes, hidden=hidden, rngs=nnx.Rngs(init_key))
    graphdef, params, rest = nnx.split(flow, nnx.Param, ...)
    params, values = _train(graphdef, params, rest, family, training, posterior, train_key)
    if not np.isfinite(values[-1]):
        raise ValueError(
            f"learning_rate is {learning_rate}, and the flow's density became NaN: give a smaller "
            "learning_rate"
        )
    return sampler_of(model, nnx.merge(graphdef, params, rest))


@partial(jax.jit, static_argnames=("graphdef", "family", "training"))
def _train(
    graphdef: nnx.GraphDef,
    params: PyTree,
    rest: PyTree,
    family: Family,
    training: Training,
    posterior: AggregatePosterior,
    key: PRNGKeyArray,
) -> tuple[PyTree, Float[Array, " t"]]:
    """Returns the trained parameters, and the mean negative log density of every step's latents."""
    schedule = optax.cosine_decay_schedule(training.learning_rate, training.num_steps)
    tx = optax.chain(optax.clip_by_global_norm(_CLIP_NORM), optax.adam(schedule))

    def negative_log_likelihood(params: PyTree, u: Float[Array, "n d"]) -> Float[Array, ""]:
        with jax.numpy_rank_promotion("allow"):
            flow = nnx.merge(graphdef, params, rest, copy=True)
            return -flow.distribution().log_prob(u).mean()

    def step(carry: PyTree, number: Array) -> tuple[PyTree, Array]:
        params, opt_state = carry
        example_key, latent_key = jax.random.split(jax.random.fold_in(key, number))
        shape = (training.batch_size,)
        index = jax.random.randint(example_key, shape, 0, posterior.num_examples)
        u = posterior.draw(family, index, latent_key)
        value, grads = jax.value_and_grad(negative_log_likelihood)(params, u)
        updates, opt_state = tx.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), value

    first = (params, tx.init(params))
    (params, _), values = jax.lax.scan(step, first, jnp.arange(training.num_steps))
    return params, values
