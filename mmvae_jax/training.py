"""The train state and the jitted train and evaluation steps."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from mmvae_jax.backward import Backward
from mmvae_jax.batch import Batch
from mmvae_jax.model import MMVAE
from mmvae_jax.objective import AUTO, OF_BACKWARD, Metrics, loss_and_metrics
from mmvae_jax.objective import value_and_grad as objective_value_and_grad


class _Static:
    """A hashable constant of a pytree whose hash is computed once, not at every jit call."""

    def __init__(self, value: Any):
        self.value = value
        self._hash = hash(value)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Static) and self.value == other.value)


class TrainState(flax.struct.PyTreeNode):
    """Everything that a training run consists of; a pytree.

    Attributes:
      step: number of updates made.
      params: the model's `nnx.Param` values, a plain nested dict.
      opt_state: of the optimizer.
      rest: the model's other variables, constant during training.
      key: randomness of step s is ``fold_in(key, s)``.
    """

    step: Int[Array, ""]
    params: PyTree
    opt_state: optax.OptState
    rest: PyTree
    key: PRNGKeyArray
    graphdef: _Static = flax.struct.field(pytree_node=False)
    tx: optax.GradientTransformation = flax.struct.field(pytree_node=False)

    def model(self) -> MMVAE:
        """The MMVAE with the current parameters: a copy, which later steps leave alone."""
        return self.replace(params=_copy(self.params), rest=_copy(self.rest)).view()

    def view(self) -> MMVAE:
        """The MMVAE on the state's own arrays, for use inside a jitted function."""
        return nnx.merge(self.graphdef.value, self.params, self.rest, copy=True)


def create_train_state(
    model: MMVAE, tx: optax.GradientTransformation, *, key: PRNGKeyArray
) -> TrainState:
    """A train state that starts from the model's parameters; the model stays as it is.

    Args:
      model: an MMVAE in the mode to train it in (``model.train()`` unless it was changed).
      tx: an optax optimizer.
      key: the run's randomness.
    """
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    params = _copy(nnx.to_pure_dict(params))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=tx.init(params),
        rest=_copy(nnx.to_pure_dict(rest)),
        key=_copy(key),
        graphdef=_Static(graphdef),
        tx=tx,
    )


def _train_step(
    state: TrainState, batch: Batch, *, backward: Backward = AUTO
) -> tuple[TrainState, Metrics]:
    """One update of the parameters; the given state is donated and must not be used again.

    Args:
      state: of `create_train_state`.
      batch: data and mask.
      backward: which particles the gradient is computed from.

    Returns:
      The next state, and the metrics of `value_and_grad`.

    Raises:
      ValueError: at trace time, if the batch does not fit the model's config.
    """
    key = jax.random.fold_in(state.key, state.step)
    metrics, grads = objective_value_and_grad(state.view(), batch, key, backward=backward)
    grads = nnx.to_pure_dict(grads)
    updates, opt_state = state.tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics


def _eval_step(state: TrainState, batch: Batch, key: PRNGKeyArray | None = None) -> Metrics:
    """The metrics of a batch, with random layers off.

    Args:
      state: of `create_train_state`.
      batch: data and mask.
      key: randomness of the particles; by default that of the state's step, the same for every
        batch.

    Returns:
      Scalars. ``loss``: minus the bound, mean over examples with anything observed.
      ``bound/<m>``: K-sample bound of the particles of expert m. ``log_likelihood/<m>``: mean
      over particles of log p(x_m|z), not rescaled, in nats. ``kl``: mean over particles of
      log q_mix(z|X) - log p(z). ``ess``: effective number of the K particles of an expert.
      ``max_weight``: their largest normalised weight. Means are over the examples (and experts)
      that are observed.
    """
    model = state.view()
    model.eval()
    if key is None:
        key = jax.random.fold_in(state.key, state.step)
    metrics = loss_and_metrics(model, batch, key, backward=AUTO)[1]
    return {name: value for name, value in metrics.items() if name not in OF_BACKWARD}


train_step = jax.jit(_train_step, donate_argnums=0, static_argnames="backward")
eval_step = jax.jit(_eval_step)


def _copy(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, tree)
