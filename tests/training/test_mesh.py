"""Several devices compute what one computes, and exchange no more than they must."""

from functools import partial

import chex
import jax
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.small_model import DIMS, every_mask, make_data, make_model
from helpers.small_model import double as double_of
from jax.sharding import PartitionSpec

import mmvae_jax as mm
from experiments.scaling import collectives
from mmvae_jax.maths.control_variate import BINS
from mmvae_jax.objective import Options, loss_of_params
from mmvae_jax.training import mesh as sharding
from mmvae_jax.training.mesh import Layout, over_mesh

pytestmark = pytest.mark.usefixtures("four_devices")

K = 8
ADAM = optax.adam(1e-2)
#: Bytes of the moments of ``adaptive_dreg``: six per bin, expert, axis and parameter.
MOMENTS = 4 * 6 * len(BINS) * len(DIMS) * 4 * 2
MESHES = {"data": (4, 1), "particle": (1, 4), "both": (2, 2)}
value_and_grad = jax.jit(mm.value_and_grad, static_argnames="backward")


@partial(jax.jit, static_argnames=("backward", "layout"))
def value_and_grad_on_mesh(model, batch, key, backward, layout):
    """Metrics and gradient as a train step on the mesh computes them."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    gradient = jax.value_and_grad(partial(loss_of_params, graphdef=graphdef), has_aux=True)
    on_all = over_mesh(layout, gradient, differentiated=True)
    (_, metrics), grads = on_all(params, rest, batch, Options(key, backward=backward))
    return {**metrics, "grad_norm": optax.tree.norm(grads)}, grads


@pytest.fixture
def small_is_large(monkeypatch):
    """Spreads even the small parameters of the tests."""
    monkeypatch.setattr(sharding, "MIN_SHARDED_SIZE", 8)


def problem(loss="dreg_looser"):
    """A model and an incomplete batch of 16 examples, in float64 where that is turned on."""
    model = make_model(loss=loss, K=K)
    double = double_of if jax.config.jax_enable_x64 else lambda tree: tree
    nnx.update(model, double(nnx.state(model)))
    twice = jax.tree.map(lambda a: np.concatenate([a, a]), (make_data(), every_mask()))
    data, mask = double(twice)
    return model, mm.Batch(data=data, mask=mask)


def make_state(**options):
    model, batch = problem()
    return mm.create_train_state(model, ADAM, key=jax.random.key(0), **options), batch


@pytest.mark.parametrize(
    ("kind", "mesh", "fsdp", "loss"),
    [
        pytest.param("sparse", "both", True, "adaptive_dreg", marks=pytest.mark.slow),
        pytest.param("sparse", "both", True, "mixture_dreg", marks=pytest.mark.slow),
        pytest.param("dense", "both", False, "adaptive_dreg_looser", marks=pytest.mark.slow),
        pytest.param("sampled", "both", True, "mixture_dreg", marks=pytest.mark.slow),
        pytest.param("dense", "both", True, "mixture_dreg", marks=pytest.mark.slow),
        pytest.param("residual", "both", True, "mixture_dreg", marks=pytest.mark.slow),
        pytest.param("sparse", "data", False, "dreg_looser", marks=pytest.mark.slow),
        pytest.param("sampled", "data", True, "mixture_dreg_looser", marks=pytest.mark.slow),
        ("dense", "particle", False, "iwae"),
        pytest.param("residual", "both", False, "stl_looser", marks=pytest.mark.slow),
    ],
)
def test_a_mesh_computes_what_one_device_does(x64, small_is_large, kind, mesh, fsdp, loss):
    model, batch = problem(loss)
    backward = mm.Backward(kind, tolerance=0.05, chunk=5, num_backward=2)
    expected = value_and_grad(model, batch, jax.random.key(1), backward=backward)
    layout = Layout(mm.make_mesh(*MESHES[mesh]), fsdp)
    ours = value_and_grad_on_mesh(model, batch, jax.random.key(1), backward, layout)
    chex.assert_trees_all_close(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [pytest.param(False, marks=pytest.mark.slow), True])
def test_training_and_evaluation_follow_one_device(x64, small_is_large, fsdp):
    one, batch = make_state()
    many, _ = make_state(mesh=mm.make_mesh(2, 2), fsdp=fsdp)
    placed = mm.shard_batch(batch, many.layout.mesh)
    assert not any(x.sharding.is_fully_replicated for x in jax.tree.leaves(placed))
    for _ in range(3):
        one, expected = mm.train_step(one, batch)
        many, metrics = mm.train_step(many, placed)
        chex.assert_trees_all_close(metrics, expected, rtol=1e-9, atol=1e-10)
    chex.assert_trees_all_close(many.params, one.params, rtol=1e-8, atol=1e-10)
    expected = mm.eval_step(one, batch, jax.random.key(4))
    metrics = mm.eval_step(many, placed, jax.random.key(4))
    chex.assert_trees_all_close(metrics, expected, rtol=1e-8)
    # A model of the state is an ordinary one.
    whole = mm.Batch(data=batch.data)
    drawn = mm.predict(many.model(), whole, jax.random.key(5), cond_mod="a", gen_mod="b")
    expected = mm.predict(one.model(), whole, jax.random.key(5), cond_mod="a", gen_mod="b")
    chex.assert_trees_all_close(drawn, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_spread_parameters_stay_spread(small_is_large):
    state, batch = make_state(mesh=mm.make_mesh(), fsdp=True)
    for _ in range(2):
        kernels = [
            state.params["encoders"]["a"]["loc"]["kernel"],  # [8, 4]
            optax.tree.get(state.opt_state, "mu")["encoders"]["a"]["loc"]["kernel"],
        ]
        for kernel in kernels:
            assert kernel.sharding.spec == PartitionSpec("data")
            assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 4)}
        assert state.params["decoders"]["a"]["out"]["bias"].sharding.is_fully_replicated  # [6]
        state, _ = mm.train_step(state, batch)


def test_layout_spreads_the_longest_axis_that_it_can():
    layout = Layout(mm.make_mesh(4, 1), fsdp=True)
    assert layout.spec((128, 512)) == PartitionSpec(None, "data")
    assert layout.spec((510, 128)) == PartitionSpec(None, "data")
    assert layout.spec((514, 510)) == PartitionSpec()
    assert layout.spec((128,)) == PartitionSpec()
    assert Layout(layout.mesh).spec((128, 512)) == PartitionSpec()


def num_bytes(tree) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def compiled_step(kind, mesh, fsdp=False):
    model = make_model(K=K)
    state = mm.create_train_state(model, ADAM, key=jax.random.key(0), mesh=mesh, fsdp=fsdp)
    batch = jax.tree.map(np.asarray, mm.Batch(data=make_data(), mask=every_mask()))
    batch = mm.shard_batch(batch, mesh)
    leaves, treedef = jax.tree.flatten(state)  # jax's own descriptions of arrays are not arrays

    def step(leaves, batch):
        return mm.train_step(treedef.unflatten(leaves), batch, backward=mm.Backward(kind))

    return state, jax.jit(step).lower(leaves, batch).compile()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "sparse", "sampled"])
def test_a_data_parallel_step_exchanges_the_gradient_and_scalars(kind):
    state, step = compiled_step(kind, mm.make_mesh())
    exchanged = collectives(step.as_text())
    assert set(exchanged) == {"all-reduce"}
    rest = exchanged["all-reduce"] - num_bytes(state.params) - MOMENTS
    assert 0 < rest <= 4 * 40  # scalars


@pytest.mark.slow
def test_fsdp_gathers_parameters_and_scatters_gradients(small_is_large):
    state, step = compiled_step("sparse", mm.make_mesh(), fsdp=True)
    exchanged = collectives(step.as_text())
    spread = [p for p in jax.tree.leaves(state.params) if not p.sharding.is_fully_replicated]
    whole = num_bytes(state.params) - num_bytes(spread)
    assert exchanged["all-gather"] == num_bytes(spread)
    assert exchanged["reduce-scatter"] == num_bytes(spread) / 4
    assert 0 < exchanged["all-reduce"] - whole - MOMENTS <= 4 * 60


@pytest.mark.slow
def test_particle_axis_exchanges_log_weights():
    _, step = compiled_step("sparse", mm.make_mesh(2, 2))
    exchanged = collectives(step.as_text())
    log_w = 4 * len(DIMS) * K * 8 // 2  # of the examples of one device
    assert exchanged["all-gather"] == log_w


def test_wrong_meshes_are_refused():
    with pytest.raises(ValueError, match="particle is 3: give a divisor of the 4 devices"):
        mm.make_mesh(particle=3)
    with pytest.raises(ValueError, match="data is 3 and particle 2, but there are 4 devices"):
        mm.make_mesh(3, 2)
    with pytest.raises(ValueError, match="fsdp is True, but mesh is None: give mesh"):
        make_state(fsdp=True)


def test_what_devices_cannot_share_is_refused():
    mesh = mm.make_mesh()
    state, _ = make_state(mesh=mesh)
    odd = mm.Batch(data={name: x[:7] for name, x in make_data().items()})
    message = "batch has 7 examples, which 4 devices cannot share"
    with pytest.raises(ValueError, match=message):
        mm.train_step(state, odd)
    with pytest.raises(ValueError, match=message):
        mm.shard_batch(odd, mesh)
    state = mm.create_train_state(
        make_model(K=3), ADAM, key=jax.random.key(0), mesh=mm.make_mesh(2, 2)
    )
    with pytest.raises(ValueError, match="K is 3"):
        mm.train_step(state, mm.Batch(data=make_data()))
