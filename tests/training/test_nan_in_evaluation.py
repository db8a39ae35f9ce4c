"""Evaluations that are not finite: an error with metric and step, and never the best."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import mmvae_jax as mm
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.training.checkpoint import Checkpoints
from mmvae_jax.training.run_settings import read_settings
from mmvae_jax.training.train_state import create_train_state

CONFIG = mm.MMVAEConfig(input_dims={"s": (5,)}, latent_dim=2, K=2)
SGD = optax.sgd(1e-4)


class Blind(MLPEncoder):
    """An encoder whose posterior of examples with large values is NaN."""

    def __call__(self, x):
        loc, log_var = super().__call__(x)
        bad = (x > 100).any(1, keepdims=True)
        return loc / jax.numpy.where(bad, 0.0, 1.0) * jax.numpy.where(bad, 0.0, 1.0), log_var


def test_a_metric_that_is_nan_ends_the_run_with_its_name(tmp_path):
    rngs = nnx.Rngs(0)
    networks = (
        {"s": Blind((5,), 2, hidden=(3,), rngs=rngs)},
        {"s": MLPDecoder(2, (5,), rngs=rngs)},
    )
    model = mm.MMVAE(CONFIG, *networks, rngs=rngs)
    state = create_train_state(model, SGD, key=jax.random.key(0))
    data = mm.MultimodalArrays({"s": np.ones((6, 5), np.float32)})
    evaluation = mm.Evaluation(
        data=mm.MultimodalArrays({"s": np.full((6, 5), 1000, np.float32)}), every=2, patience=1
    )
    with pytest.raises(mm.NonFiniteError, match=r"^eval/loss is nan at step 2, ") as error:
        mm.fit(
            state,
            data,
            num_steps=4,
            batch_size=6,
            progress=False,
            evaluation=evaluation,
            checkpointing=mm.Checkpointing(directory=tmp_path / "run", every=1),
        )
    assert (error.value.step, error.value.metric) == (2, "eval/loss")
    saved = Checkpoints(tmp_path / "run", config=read_settings(tmp_path / "run"), best="eval/loss")
    assert (saved.steps[-1], saved.best_step) == (1, None)
