"""The state of a training run."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from mmvae_jax.config import MMVAEConfig
from mmvae_jax.inputs.keys import as_key
from mmvae_jax.model import MMVAE
from mmvae_jax.training.donation import check_not_donated
from mmvae_jax.training.mesh import Layout, gather


class _Static:
    """A static part of a pytree, whose hash is computed once and not at every jit call."""

    def __init__(self, value: Any):
        self.value = value
        self.config: MMVAEConfig | None = None
        self._hash = hash(value)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Static) and self.value == other.value)


class TrainState(flax.struct.PyTreeNode):
    """The state of a training run; a pytree.

    Attributes:
      step: number of updates made.
      params: the model's ``nnx.Param`` values, a plain nested dict.
      opt_state: state of the optimizer.
      rest: the model's other variables, constant during training.
      key: key of the run; the randomness of step s is ``fold_in(key, s)``.
      graphdef: static part of the model.
      tx: optimizer.
      layout: sharding over a mesh; None on one device.
    """

    step: Int[Array, "..."]
    params: PyTree
    opt_state: optax.OptState
    rest: PyTree
    key: Array
    graphdef: _Static = flax.struct.field(pytree_node=False)
    tx: optax.GradientTransformation = flax.struct.field(pytree_node=False)
    layout: Layout | None = flax.struct.field(pytree_node=False, default=None)

    def model(self) -> MMVAE:
        """Returns an MMVAE with a copy of the current parameters, which later steps keep intact.

        On a mesh the parameters are gathered on the default device; all processes must call this.
        """
        check_not_donated(self)
        copy = _copy if self.layout is None else gather
        return self.replace(params=copy(self.params), rest=copy(self.rest)).view()

    def view(self) -> MMVAE:
        """Returns the MMVAE on the state's own arrays, for use inside a jitted function."""
        check_not_donated(self)
        return nnx.merge(self.graphdef.value, self.params, self.rest, copy=True)


def create_train_state(
    model: MMVAE,
    tx: optax.GradientTransformation,
    *,
    key: PRNGKeyArray,
    mesh: Mesh | None = None,
    fsdp: bool = False,
) -> TrainState:
    """Returns a train state that starts from a copy of the model's parameters.

    Args:
      model: an MMVAE in the mode to train it in (``model.train()`` unless it was changed).
      tx: an optax optimizer; it is given the loss and its function, too, as
        ``reduce_on_plateau`` and ``lbfgs`` need. A new optimizer object compiles the train step
        again, but ``make_optimizer`` returns the same object for equal arguments.
      key: randomness of the run.
      mesh: mesh from ``make_mesh`` to train on; without one, JAX's default device.
      fsdp: shard large parameters and their optimizer state over the devices; otherwise each
        device has a copy.

    Raises:
      ValueError: if ``fsdp`` is True without a mesh.

    >>> state = mm.create_train_state(model, tx, key=jax.random.key(0))
    >>> int(state.step), state.model().config == config
    (0, True)
    """
    if fsdp and mesh is None:
        raise ValueError("fsdp is True, but mesh is None: give mesh=mm.make_mesh()")
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    params = _copy(nnx.to_pure_dict(params))
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        # Some optimizers keep the parameters, and no buffer can be donated twice.
        opt_state=_copy(tx.init(params)),
        rest=_copy(nnx.to_pure_dict(rest)),
        key=_copy(as_key(key)),
        graphdef=_Static(graphdef),
        tx=tx,
    )
    if mesh is None:
        return state
    layout = Layout(mesh, fsdp)
    return layout.place(state).replace(layout=layout)


def config_of(state: TrainState) -> MMVAEConfig:
    """Returns the model's config, which is found once for all states of a run.

    Raises:
      ValueError: if a training step has taken over the state.
    """
    check_not_donated(state)
    static = state.graphdef
    if static.config is None:
        static.config = state.view().config
    return static.config


def _copy(tree: PyTree) -> PyTree:
    """Returns a tree with copies of its arrays, all in one program."""
    arrays, treedef = jax.tree.flatten(tree)
    places = [place for place, x in enumerate(arrays) if isinstance(x, jax.Array)]
    for place, x in zip(places, _copies([arrays[place] for place in places]), strict=True):
        arrays[place] = x
    return jax.tree.unflatten(treedef, arrays)


@jax.jit
def _copies(arrays: list[Array]) -> list[Array]:
    return [jnp.copy(x) for x in arrays]
