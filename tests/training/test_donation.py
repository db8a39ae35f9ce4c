"""States that a step has taken over are refused by name, at every door."""

import inspect
import pydoc

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from flax import nnx

import mmvae_jax as mm
from mmvae_jax.training.checkpoint import Checkpoints

CONFIG = mm.MMVAEConfig(input_dims={"w": (4,)}, latent_dim=2, K=2)
BATCH = mm.Batch({"w": np.ones((8, 4), np.float32)})
SGD = optax.sgd(1e-3)


@pytest.fixture(scope="module")
def states():
    model = mm.MMVAE(CONFIG, rngs=nnx.Rngs(0))
    state = mm.create_train_state(model, SGD, key=jax.random.key(0))
    return state, mm.train_step(state, BATCH)[0]


DOORS = {
    "train_step": lambda state, _: mm.train_step(state, BATCH),
    "by keyword": lambda state, _: mm.train_step(batch=BATCH, state=state),
    "train_steps": lambda state, _: mm.train_steps(state, jax.tree.map(lambda x: x[None], BATCH)),
    "eval_step": lambda state, _: mm.eval_step(state, BATCH),
    "evaluate": lambda state, _: mm.evaluate(state, BATCH),
    "fit": lambda state, _: mm.fit(state, BATCH, num_steps=1, batch_size=8, progress=False),
    "model": lambda state, _: state.model(),
    "view": lambda state, _: state.view(),
    "save": lambda state, folder: Checkpoints(folder, config={}).save(state),
    "another step": lambda state, _: mm.train_step(state.replace(step=jnp.int32(3)), BATCH),
}


@pytest.mark.parametrize("name", DOORS)
def test_a_donated_state_is_refused(name, states, tmp_path):
    with pytest.raises(ValueError, match=r"^state is deleted: "):
        DOORS[name](states[0], tmp_path / "run")


def test_the_step_stays_a_jitted_function(states, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # lowering has other types
    text = pydoc.plain(pydoc.render_doc(mm.train_step))
    assert "train_step(state" in text
    assert "Returns the state after one update" in text
    assert mm.train_step.lower(states[1], BATCH).as_text()
    shapes = jax.eval_shape(mm.train_step, states[1], BATCH)
    assert shapes[1]["loss"].shape == ()
    assert inspect.unwrap(mm.train_step).__name__ == "train_step"
