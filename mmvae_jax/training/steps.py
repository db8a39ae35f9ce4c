"""The jitted train and evaluation steps."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from mmvae_jax.batch import AnyBatch, Batch, as_batch
from mmvae_jax.inputs.keys import as_key
from mmvae_jax.inputs.value_checks import check_values
from mmvae_jax.maths.backward import Backward
from mmvae_jax.maths.collectives import ALONE
from mmvae_jax.maths.means import Means, over_devices
from mmvae_jax.objective import (
    AUTO,
    BACKWARD_METRICS,
    Metrics,
    Options,
    batch_means,
    loss_of_params,
)
from mmvae_jax.overrides import Overrides
from mmvae_jax.training.donation import refusing_donated
from mmvae_jax.training.mesh import over_mesh
from mmvae_jax.training.optimizer import reported, taken_by
from mmvae_jax.training.train_state import TrainState, config_of


def _check_batch(state: TrainState, batch: AnyBatch, *_: Any, **__: Any) -> None:
    """Checks the values of NumPy's arrays; those on a device would have to be waited for."""
    batch = as_batch(batch)
    if _is_checked(state, batch):
        check_values(config_of(state), batch)


def _check_batches(state: TrainState, batches: AnyBatch, *_: Any, **__: Any) -> None:
    """Checks the values of the batch of every step, as ``_check_batch``."""
    batches = as_batch(batches)
    if _is_checked(state, batches):
        for step in range(len(jax.tree.leaves(batches.data)[0])):
            batch = jax.tree.map(lambda x, step=step: x[step], batches)
            check_values(config_of(state), batch, field=f"batches[{step}].data")


def _is_checked(state: TrainState, batch: Batch) -> bool:
    """Returns True for data of NumPy's arrays, outside of ``jax.jit``."""
    has_arrays = any(isinstance(x, np.ndarray) for x in jax.tree.leaves(batch.data))
    is_traced = isinstance(state.step, Tracer)
    return has_arrays and isinstance(batch.data, Mapping) and not is_traced


@partial(refusing_donated, check=_check_batch)
@partial(jax.jit, donate_argnums=0, static_argnames="backward")
def train_step(
    state: TrainState,
    batch: AnyBatch,
    *,
    overrides: Overrides | None = None,
    backward: Backward = AUTO,
) -> tuple[TrainState, Metrics]:
    """Returns the state after one update of the parameters, and the metrics of the batch.

    The given state is donated and must not be used again.

    Args:
      state: train state from ``create_train_state``.
      batch: examples; for a state on a mesh best put there by ``shard_batch``.
      overrides: numbers to use in place of the config's; other values do not compile again.
      backward: choice of the particles that the gradient is computed from.

    Returns:
      The next state, and the metrics of ``value_and_grad`` with the optimizer's
      ``learning_rate`` and ``skipped_updates`` if it reports them (see ``make_optimizer``).

    Raises:
      ValueError: at trace time, if the batch does not fit the model's config; if NumPy's arrays
        hold values that a likelihood cannot have, which are not checked on a device and under
        ``jax.jit``; or if the state was donated to another step before.

    >>> state = mm.create_train_state(model, tx, key=jax.random.key(0))
    >>> state, metrics = mm.train_step(state, batch, overrides=mm.Overrides(beta=0.5))
    >>> int(state.step), sorted(metrics)[:3]
    (1, ['backward_share', 'bound/sound', 'bound/text'])
    """
    return _update(state, batch, overrides, backward)


@partial(refusing_donated, check=_check_batches)
@partial(jax.jit, donate_argnums=0, static_argnames="backward")
def train_steps(
    state: TrainState,
    batches: AnyBatch,
    *,
    overrides: Overrides | None = None,
    backward: Backward = AUTO,
) -> tuple[TrainState, dict[str, Float[Array, " s"]]]:
    """Returns the state after several updates in one call, and the metrics of each.

    One call costs less than several where steps are short.

    Args:
      state: train state from ``create_train_state``; donated.
      batches: batches of ``train_step`` with the steps as one more axis in front.
      overrides: overrides of ``train_step`` with the steps in front, ``[s]``.
      backward: choice of the particles that the gradient is computed from.

    Returns:
      The state after the last step, and the metrics of every step, ``[s]``.

    Raises:
      ValueError: as ``train_step``, for the batch of any step.

    >>> state = mm.create_train_state(model, tx, key=jax.random.key(0))
    >>> state, metrics = mm.train_steps(state, jax.tree.map(lambda x: np.stack([x] * 3), batch))
    >>> int(state.step), metrics["loss"].shape
    (3, (3,))
    """

    def step(state, given):
        batch, overrides = given
        return _update(state, batch, overrides, backward)

    return jax.lax.scan(step, state, (batches, overrides))


@partial(refusing_donated, check=_check_batch)
@jax.jit
def eval_step(
    state: TrainState,
    batch: AnyBatch,
    key: PRNGKeyArray | None = None,
    *,
    overrides: Overrides | None = None,
) -> Metrics:
    """Returns the metrics of a batch, with random layers off.

    Args:
      state: train state from ``create_train_state``.
      batch: examples.
      key: randomness of the particles; by default that of the state's step, the same for every
        batch.
      overrides: numbers to use in place of the config's.

    Returns:
      Scalars. ``loss``: minus the bound, mean over examples with at least one modality.
      ``bound/<m>``: K-sample bound of the particles of expert m. ``log_likelihood/<m>``: mean
      over particles of log p(x_m|z), not rescaled, in nats. ``kl``: mean over particles of
      log q_mix(z|X) - log p(z). ``ess``: effective number of the K particles of an expert.
      ``max_weight``: their largest normalised weight. Means are over the examples (and experts)
      that are observed. ``min_scale``: smallest scale of any observed expert's posterior.

    >>> state = mm.create_train_state(model, tx, key=jax.random.key(0))
    >>> sorted(mm.eval_step(state, batch))[:4]
    ['bound/sound', 'bound/text', 'ess', 'kl']
    """
    means = _eval_means(state, batch, key, overrides)
    return {name: mean.value for name, mean in means.items()}


@refusing_donated
@jax.jit
def eval_means(state: TrainState, batch: AnyBatch, key: PRNGKeyArray) -> Means:
    """Returns the metrics of ``eval_step`` as statistics that can be merged over batches."""
    return _eval_means(state, batch, key, None)


def _update(
    state: TrainState, batch: AnyBatch, overrides: Overrides | None, backward: Backward
) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(as_key(state.key), state.step)
    options = Options(key, overrides=overrides, backward=backward)
    gradient = jax.value_and_grad(
        partial(loss_of_params, graphdef=state.graphdef.value), has_aux=True
    )
    layout = state.layout
    shards: tuple[Any, ...] = (ALONE,)
    if layout is not None:
        gradient, shards = over_mesh(layout, gradient, differentiated=True), ()
    (_, metrics), grads = gradient(state.params, state.rest, batch, options, *shards)

    def again(params: PyTree) -> Any:  # with the draws of the step
        same = options._replace(key=jax.random.clone(key))
        return gradient(params, state.rest, batch, same, *shards)

    value_fn = _value_function(again)
    extra = taken_by(state.tx, {"value": metrics["loss"], "grad": grads, "value_fn": value_fn})
    updates, opt_state = state.tx.update(grads, state.opt_state, state.params, **extra)
    params = optax.apply_updates(state.params, updates)
    if layout is not None:
        params, opt_state = layout.constrain((params, opt_state))
    metrics = {**metrics, "grad_norm": optax.tree.norm(grads), **reported(opt_state)}
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics


def _value_function(
    gradient: Callable[[PyTree], tuple[tuple[Array, Metrics], PyTree]],
) -> Callable[[PyTree], Float[Array, ""]]:
    """Returns the loss as a function of parameters that differentiates to the estimator's gradient.

    A line search evaluates it for the batch and the particles of the step.
    """

    @jax.custom_vjp
    def value(params: PyTree) -> Float[Array, ""]:
        (_, metrics), _ = gradient(params)
        return metrics["loss"]  # of all devices

    def forward(params: PyTree) -> tuple[Float[Array, ""], PyTree]:
        (_, metrics), grads = gradient(params)
        return metrics["loss"], grads

    def backward(grads: PyTree, cotangent: Float[Array, ""]) -> tuple[PyTree]:
        return (jax.tree.map(lambda g: cotangent.astype(g.dtype) * g, grads),)

    value.defvjp(forward, backward)
    return value


def _eval_means(
    state: TrainState, batch: AnyBatch, key: PRNGKeyArray | None, overrides: Overrides | None
) -> Means:
    key = jax.random.fold_in(as_key(state.key), state.step) if key is None else as_key(key)

    def of_device(params, rest, batch, options, shards):
        model = nnx.merge(state.graphdef.value, params, rest, copy=True)
        model.eval()
        model.config = model.config.with_all_experts()
        return over_devices(batch_means(model, batch, options, shards), shards)

    given = (state.params, state.rest, batch, Options(key, overrides=overrides))
    layout = state.layout
    means = of_device(*given, ALONE) if layout is None else over_mesh(layout, of_device)(*given)
    return {name: mean for name, mean in means.items() if name not in BACKWARD_METRICS}
