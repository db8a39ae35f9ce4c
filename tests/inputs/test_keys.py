"""Keys: raw and new ones of a seed give the same numbers, and anything else is refused by name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.small_model import make_data, make_model

import mmvae_jax as mm
from mmvae_jax.inputs.keys import as_key
from mmvae_jax.metrics.generation import generations, measure_joint_coherence
from mmvae_jax.metrics.likelihood import measure_log_likelihoods
from mmvae_jax.metrics.particles import measure_log_weights, measure_responsibilities
from mmvae_jax.metrics.probe import latents_of_experts
from mmvae_jax.saving.exported import _key_bits

MODEL, TX = make_model(), optax.sgd(0.1)
BATCH = mm.Batch(make_data())
SET = mm.MultimodalArrays(BATCH.data, labels=np.arange(8))


def state_of(key):
    return mm.create_train_state(MODEL, TX, key=key)


def jitted(function):
    """Compiles calls with keys; integers go to the function itself."""
    compiled = jax.jit(function)
    return lambda key: (compiled if isinstance(key, jax.Array) else function)(key)


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "loss": jitted(lambda key: mm.loss(MODEL, BATCH, key)),
    "value_and_grad": jitted(lambda key: mm.value_and_grad(MODEL, BATCH, key)[0]),
    "encode": lambda key: mm.encode(MODEL, BATCH, key, N=2),
    "encode by importance": lambda key: mm.encode(
        MODEL, BATCH, key, weighting=mm.ImportanceWeighting(num_particles=4)
    ),
    "decode": lambda key: mm.decode(MODEL, jnp.zeros((2, 4)), key=key, sample=True),
    "predict": lambda key: mm.predict(MODEL, BATCH, key, sample=True),
    "reconstruct": lambda key: mm.reconstruct(MODEL, BATCH, key),
    "generate": lambda key: mm.generate(MODEL, key, 3, sample=True),
    "generate_from_prior": lambda key: mm.generate_from_prior(MODEL, key, 3),
    "experts": lambda key: MODEL.experts(BATCH.data, key=key),
    "train_step": lambda key: mm.train_step(state_of(key), BATCH)[1],
    "replaced key": lambda key: mm.train_step(state_of(as_key(key)).replace(key=key), BATCH)[1],
    "eval_step": lambda key: mm.eval_step(state_of(jax.random.key(1)), BATCH, key),
    "evaluate": lambda key: mm.evaluate(state_of(jax.random.key(1)), BATCH, batch_size=8, key=key),
    "fit": lambda key: (
        mm.fit(state_of(key), BATCH, num_steps=1, batch_size=8, progress=False).state.params
    ),
    "compute_joint_nll": lambda key: mm.compute_joint_nll(MODEL, BATCH, key, K=4),
    "compute_joint_nll_paper": lambda key: mm.compute_joint_nll_paper(MODEL, BATCH, key, K=4),
    "compute_marginal_nll": lambda key: mm.compute_marginal_nll(
        MODEL, BATCH, key, modality="a", K=4
    ),
    "compute_cond_nll": lambda key: mm.compute_cond_nll(MODEL, BATCH, key, cond_mod="a", K=4),
    "compute_cond_nll_ratio": lambda key: mm.compute_cond_nll_ratio(
        MODEL, BATCH, key, cond_mod="a", pred_mods="b", K=4
    ),
    "compute_joint_nll_ais": lambda key: mm.compute_joint_nll_ais(
        MODEL, BATCH, key, num_chains=2, num_temperatures=2, num_leapfrog=1
    ),
    "bound_joint_nll_ais": lambda key: mm.bound_joint_nll_ais(
        MODEL, 2, key, num_chains=2, num_temperatures=2, num_leapfrog=1
    ),
    "generations": lambda key: next(generations(MODEL, SET, key, givens=[("a",)])).data,
    "measure_joint_coherence": lambda key: measure_joint_coherence(
        MODEL, {"a": Signs(), "b": Signs()}, key, num_samples=4, num_classes=2
    ),
    "measure_log_likelihoods": lambda key: measure_log_likelihoods(MODEL, SET, key, K=4).joint,
    "measure_log_weights": lambda key: measure_log_weights(MODEL, BATCH, key),
    "measure_responsibilities": lambda key: measure_responsibilities(MODEL, BATCH, key),
    "latents_of_experts": lambda key: latents_of_experts(MODEL, SET, key),
}
#: Functions of the fast tests; the others compile more.
FAST = {"loss", "encode", "decode", "generate", "experts", "train_step", "evaluate"}
WRONG = {
    "3": 3,
    "0.5": 0.5,
    "'seed'": "seed",
    r"\(1, 2\)": (1, 2),
    r"uint32\[3\]": np.zeros(3, np.uint32),
    r"int32\[2\]": np.zeros(2, np.int32),
    r"uint32\[5, 2\]": np.zeros((5, 2), np.uint32),
    r"float32\[3, 2\]": jnp.zeros((3, 2)),
    r"an array of keys of shape \(2,\)": jax.random.split(jax.random.key(0)),
}


class Signs:
    """A classifier by the sign of the first entry."""

    def predict(self, x):
        return jnp.int32(x.reshape(len(x), -1)[:, 0] > 0)


@pytest.fixture
def unchecked_types():
    """The checks of types in tests come before those that users meet."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in FUNCTIONS]
)
def test_raw_keys_draw_what_new_ones_draw(name):
    new, raw = (FUNCTIONS[name](make(11)) for make in (jax.random.key, jax.random.PRNGKey))
    jax.tree.map(np.testing.assert_array_equal, new, raw)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_refuses_integers_as_keys(name, unchecked_types):
    if name == "replaced key":
        pytest.skip("a state is checked where it is made")
    with pytest.raises(ValueError, match=r"^key is (3|int32\[\]): give jax.random.key"):
        FUNCTIONS[name](3)


@pytest.mark.parametrize("described", WRONG)
def test_what_is_no_key_is_refused(described):
    with pytest.raises(ValueError, match=f"^key is {described}: "):
        as_key(WRONG[described])


@pytest.mark.parametrize("rngs", [0, jax.random.key(0), None])
def test_networks_start_from_rngs(rngs, unchecked_types):
    with pytest.raises(ValueError, match=r"(?s)^rngs is .*: give nnx.Rngs"):
        mm.MMVAE(MODEL.config, rngs=rngs)


def test_keys_of_numpy_and_under_transformations(unchecked_types):
    key: jax.Array = jax.random.key(5)
    raw: Any = np.asarray(jax.random.PRNGKey(5))
    want = mm.generate_from_prior(MODEL, key, 3)
    np.testing.assert_array_equal(mm.generate_from_prior(MODEL, raw, 3), want)
    many = jax.vmap(lambda key: mm.generate_from_prior(MODEL, key, 3))
    raws = np.stack([raw, np.asarray(jax.random.PRNGKey(6))])
    np.testing.assert_allclose(jax.jit(many)(raws)[0], want, rtol=1e-5)
    assert nnx.Rngs(key)  # as the message on rngs recommends


def test_exported_programs_take_both_kinds():
    bits = [_key_bits(make(4)) for make in (jax.random.key, jax.random.PRNGKey)]
    np.testing.assert_array_equal(bits[0], bits[1])
    with pytest.raises(ValueError, match=r"^key is 4: "):
        _key_bits(4)
