"""Training with private latents and clusters: meshes, resumed runs, exported programs."""

from functools import partial

import chex
import jax
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.small_model import double, double_model, every_mask, make_data, make_model

import mmvae_jax as mm

#: The scale of a private latent of one axis is constant under laplace_with_softmax.
pytestmark = pytest.mark.filterwarnings("ignore:modalities_specific_dim is 1")

BOTH = {
    "modalities_specific_dim": {"a": 2, "b": 0, "c": 1},
    "number_of_clusters": 3,
    "learn_prior": True,
}


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["adaptive_dreg_looser", "mixture_dreg"])
def test_a_mesh_follows_one_device(x64, loss):
    data, mask = jax.tree.map(lambda a: np.concatenate([a, a]), (make_data(), every_mask()))
    batch = mm.Batch(double(data), mask)

    def state(**options):
        model = double_model(make_model(loss=loss, K=8, **BOTH))
        return mm.create_train_state(model, optax.adam(1e-2), key=jax.random.key(0), **options)

    one, many = state(), state(mesh=mm.make_mesh(2, 2))
    placed = mm.shard_batch(batch, many.layout.mesh)
    step = partial(mm.train_step, backward=mm.Backward("sparse"))
    for _ in range(2):
        one, expected = step(one, batch)
        many, metrics = step(many, placed)
        chex.assert_trees_all_close(metrics, expected, rtol=1e-9, atol=1e-10)
    chex.assert_trees_all_close(many.params, one.params, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_a_resumed_run_is_the_same(tmp_path):
    """Three steps, a stop and three more: the bits of six steps."""
    data = mm.MultimodalArrays({m: np.asarray(x) for m, x in make_data().items()})

    def run(folder, num_steps):
        state = mm.create_train_state(
            make_model(**BOTH), mm.make_optimizer(1e-2), key=jax.random.key(0)
        )
        checkpointing = mm.Checkpointing(directory=folder, resume=True)
        return mm.fit(
            state,
            data,
            num_steps=num_steps,
            batch_size=4,
            checkpointing=checkpointing,
            progress=False,
        ).state

    whole = run(tmp_path / "whole", 6)
    run(tmp_path / "parts", 3)
    parts = run(tmp_path / "parts", 6)
    chex.assert_trees_all_equal(parts.params, whole.params)


@pytest.mark.slow
def test_exported_programs(tmp_path):
    """Programs of default networks encode and decode ``[u, w_1, ..., w_M]`` as the model does."""
    model = mm.MMVAE(make_model(**BOTH).config, rngs=nnx.Rngs(0))
    exported = mm.load_exported(mm.export(model, tmp_path / "exported", platforms=["cpu"]))
    batch = mm.Batch(make_data())
    z = mm.encode(model, batch, None, return_mean=True)[:, 0]
    chex.assert_shape(z, (8, 7))
    for name, x in mm.decode(model, z).items():
        np.testing.assert_allclose(exported.decode(z)[name], x, rtol=1e-5, atol=1e-5)
