"""Shared evaluation: every example counts once, and in the right place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mmvae_jax as mm
from experiments import evaluation
from mmvae_jax.data.arrays import MultimodalArrays

CONFIG = mm.MMVAEConfig(
    input_dims={"image": (2, 2, 1), "word": (4, 5), "bits": (3,)},
    decoders_dist={"word": "categorical", "bits": "bernoulli"},
    latent_dim=2,
)
LABELS = np.arange(10) % 5


class FirstEntry:
    """A classifier of examples whose entries are all their class."""

    def predict(self, x):
        return np.asarray(x).reshape(len(x), -1)[:, 0].astype(int)


class Model:
    config = mm.MMVAEConfig(input_dims={"a": (2,), "b": (3,)})


def make_dataset() -> MultimodalArrays:
    data = {
        name: np.broadcast_to(LABELS[:, None], (10, *dim)).astype(np.float32)
        for name, dim in Model.config.input_dims.items()
    }
    return MultimodalArrays(data, LABELS)


def test_coherence_says_which_is_given_and_which_generated(monkeypatch):
    def reconstruct(model, batch, key):
        a, b = batch.data["a"][:, None], batch.data["b"][:, None]
        wrong = a + (a == 4)  # one class of five
        return {"a": {"a": a, "b": b}, "b": {"a": wrong, "b": b + 1}}

    monkeypatch.setattr(mm, "reconstruct", reconstruct)
    monkeypatch.setattr(evaluation, "CHUNK", 4)
    classifiers = dict.fromkeys("ab", FirstEntry())
    coherence = evaluation.measure_conditional_coherence(
        Model(), make_dataset(), classifiers, jax.random.key(0)
    )
    assert coherence == {"a": {"a": 1.0, "b": 1.0}, "b": {"a": 0.8, "b": 0.0}}


def test_joint_coherence_looks_at_one_latent_at_a_time(monkeypatch):
    def generate(model, key, n_samples):
        classes = np.arange(n_samples) % 5
        a = np.broadcast_to(classes[:, None], (n_samples, 2))
        b = np.broadcast_to(np.where(classes < 2, classes, 9)[:, None], (n_samples, 3))
        return {"a": a.astype(np.float32), "b": b.astype(np.float32)}

    monkeypatch.setattr(mm, "generate", generate)
    classifiers = dict.fromkeys("ab", FirstEntry())
    coherence = evaluation.measure_joint_coherence(
        Model(), classifiers, jax.random.key(0), num_samples=50
    )
    assert coherence == pytest.approx(2 / 5)


def test_posterior_means_are_each_modalitys_own(monkeypatch):
    model = mm.MMVAE(CONFIG, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    data = {name: rng.random((7, *dim), np.float32) for name, dim in CONFIG.input_dims.items()}
    monkeypatch.setattr(evaluation, "CHUNK", 3)
    means = evaluation.posterior_means(model, MultimodalArrays(data))
    expected = model.experts({name: jnp.asarray(x) for name, x in data.items()}).loc
    assert list(means) == list(data)
    for m, name in enumerate(data):
        np.testing.assert_allclose(means[name], expected[m], rtol=1e-5, atol=1e-6)
