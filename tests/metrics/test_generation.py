"""Coherence of a model that copies what it is given: every subset, missing modalities, chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mmvae_jax as mm
from mmvae_jax.data import MultimodalArrays
from mmvae_jax.metrics import (
    as_examples,
    averages,
    coherence_by_size,
    generations,
    measure_coherence,
    measure_joint_coherence,
    subsets,
)

NAMES = ("a", "b", "c")
CONFIG = mm.MMVAEConfig(
    input_dims=dict.fromkeys(NAMES, (2,)), latent_dim=2, prior_and_posterior_dist="normal"
)
NUM_CLASSES = 3
LABELS = np.arange(10) % NUM_CLASSES


class Copy(nnx.Module):
    """Encodes its input, plus an offset, with next to no noise."""

    def __init__(self, off):
        self.off = off

    def __call__(self, x):
        return x + self.off, jnp.full_like(x, -20.0)


class Same(nnx.Module):
    def __call__(self, z):
        return z


class Nearest:
    """A classifier whose class is the first entry, rounded."""

    def predict(self, x):
        return np.asarray(jnp.clip(jnp.round(x[:, 0]), 0, NUM_CLASSES - 1)).astype(int)


CLASSIFIERS = dict.fromkeys(NAMES, Nearest())


def make_model(**off):
    encoders = {name: Copy(off.get(name, 0.0)) for name in NAMES}
    return mm.MMVAE(CONFIG, encoders, dict.fromkeys(NAMES, Same()), rngs=nnx.Rngs(0))


def make_dataset(mask=None):
    x = np.repeat(LABELS[:, None], 2, axis=1).astype(np.float32)
    if mask is not None:
        data = {name: np.where(mask[name][:, None], x, np.nan) for name in NAMES}
        return MultimodalArrays(data, LABELS, mask)
    return MultimodalArrays(dict.fromkeys(NAMES, x), LABELS)


@pytest.mark.slow
def test_a_model_that_copies_is_coherent_from_every_subset():
    tallies = measure_coherence(
        make_model(),
        make_dataset(),
        CLASSIFIERS,
        jax.random.key(0),
        num_classes=NUM_CLASSES,
        batch_size=4,
    )
    assert [*tallies] == subsets(NAMES)
    for row in tallies.values():
        assert [*row] == [*NAMES]
        for counted in row.values():
            assert counted.counts.tolist() == counted.hits.tolist() == [4, 3, 3]


def test_one_wrong_expert_shows_in_the_share_of_z_that_come_from_it():
    """Modality a is off by one class: never right by itself, and half of the time with b or c."""
    num_copies = 200
    dataset = make_dataset()
    rows = np.tile(np.flatnonzero(LABELS < 2), num_copies)
    data = {name: x[rows] for name, x in dataset.data.items()}
    tallies = measure_coherence(
        make_model(a=1.0),
        MultimodalArrays(data, LABELS[rows]),
        CLASSIFIERS,
        jax.random.key(0),
        num_classes=NUM_CLASSES,
    )
    coherence = averages(tallies)
    assert set(coherence["a",].values()) == {0.0}
    assert set(coherence["b",].values()) == {1.0}
    standard_error = np.sqrt(0.25 / len(rows))
    for given in (("a", "b"), ("a", "c")):
        assert abs(coherence[given]["b"] - 0.5) < 4 * standard_error
    by_size = coherence_by_size(coherence)
    np.testing.assert_allclose(by_size[1], (0 + 0 + 1 + 1 + 1 + 1) / 6)


def test_an_example_counts_where_it_has_what_is_given_and_what_is_generated():
    rng = np.random.default_rng(0)
    mask = {name: rng.random(10) < 0.6 for name in NAMES}
    tallies = measure_coherence(
        make_model(),
        make_dataset(mask),
        CLASSIFIERS,
        jax.random.key(0),
        num_classes=NUM_CLASSES,
        batch_size=4,
    )
    for given, row in tallies.items():
        for name, counted in row.items():
            complete = np.all([mask[n] for n in {*given, name}], axis=0)
            expected = np.bincount(LABELS[complete], minlength=NUM_CLASSES)
            assert counted.counts.tolist() == counted.hits.tolist() == expected.tolist()


def test_generations_come_from_the_mixture_of_what_is_given_in_one_program(monkeypatch):
    traces = []
    forward = Copy.__call__
    monkeypatch.setattr(Copy, "__call__", lambda self, x: traces.append(1) or forward(self, x))
    found = list(generations(make_model(b=5.0), make_dataset(), jax.random.key(0), batch_size=4))
    assert len(found) == 3 * len(subsets(NAMES))
    assert len(traces) <= len(NAMES)
    for generation in found:
        off = np.asarray(generation.data["c"] - generation.batch.data["c"])
        rows = generation.is_given
        assert rows.sum() == 4 - 2 * (generation.batch.weight[-1] == 0)
        possible = {5 * (name == "b") for name in generation.given}
        assert {*np.round(off[rows], 2).ravel().tolist()} <= possible


def test_importance_weighting_draws_from_the_posterior_of_all_that_is_given():
    """z given a and b is N((a + b) / 3, 1 / 3), whatever the encoder of a says."""
    x = np.repeat(np.tile(LABELS, 60)[:, None], 2, axis=1).astype(np.float32)
    mask = {name: np.full(len(x), name != "c") for name in NAMES}
    mask["a"][-1] = mask["b"][-1] = False
    data = MultimodalArrays(dict.fromkeys(NAMES, x), mask=mask)
    settings = {"givens": [("a", "b")], "batch_size": len(x), "weighting": "importance"}
    (found,) = generations(make_model(a=1.0), data, jax.random.key(0), **settings)
    assert found.is_given.sum() == len(x) - 1
    off = np.asarray(found.data["c"] - 2 / 3 * x)[:-1]
    assert abs(off.mean()) < 4 * np.sqrt(1 / 3 / off.size)
    np.testing.assert_allclose(off.std(), np.sqrt(1 / 3), rtol=4 / np.sqrt(2 * off.size))
    assert np.isfinite(found.data["c"]).all()


def test_chosen_subsets_in_the_config_s_order():
    chosen = [("c", "a"), ("b",)]
    found = generations(make_model(), make_dataset(), jax.random.key(0), givens=chosen)
    assert [generation.given for generation in found] == [("a", "c"), ("b",)]
    with pytest.raises(ValueError, match="givens is"):
        next(generations(make_model(), make_dataset(), jax.random.key(0), givens=[("d",)]))


def test_joint_coherence_counts_every_sample_once():
    model, num_samples = make_model(), 50
    for batch_size in (50, 64, 8):
        counted = measure_joint_coherence(
            model,
            CLASSIFIERS,
            jax.random.key(0),
            num_samples=num_samples,
            num_classes=NUM_CLASSES,
            batch_size=batch_size,
        )
        assert counted.micro == 1
        assert counted.counts.sum() == num_samples * len(NAMES)


def test_joint_coherence_of_given_latents():
    def draw(key, n):
        return jnp.tile(jnp.array([[0.0, 9.0], [2.0, 9.0]]), (n // 2, 1))

    counts = {"num_samples": 8, "num_classes": NUM_CLASSES, "batch_size": 4}
    counted = measure_joint_coherence(
        make_model(), CLASSIFIERS, jax.random.key(0), draw_latents=draw, **counts
    )
    assert counted.counts.tolist() == [12, 0, 12]


def test_labels_are_needed():
    dataset = make_dataset()._replace(labels=None)
    with pytest.raises(ValueError, match="labels is None"):
        measure_coherence(
            make_model(), dataset, CLASSIFIERS, jax.random.key(0), num_classes=NUM_CLASSES
        )


def test_logits_are_decided():
    config = mm.MMVAEConfig(
        input_dims={"word": (2, 3), "bits": (3,), "image": (2, 2, 1)},
        decoders_dist={"word": "categorical", "bits": "bernoulli"},
    )
    word = as_examples(config, "word", jnp.array([[[1.0, 3.0, 2.0], [0.0, -1.0, -2.0]]]))
    assert word.tolist() == [[[0, 1, 0], [1, 0, 0]]]
    assert as_examples(config, "bits", jnp.array([[0.1, -3.0, 2.0]])).tolist() == [[1, 0, 1]]
    image = jnp.ones((1, 2, 2, 1)) / 3
    assert as_examples(config, "image", image) is image


@pytest.mark.parametrize("option", ["joint_prior", "single_prior"])
def test_private_latents_of_given_modalities_are_their_own(option):
    """Encoders and decoders copy [u, w]; the w of a modality that is not given is random."""
    config = CONFIG.replace(latent_dim=1, modalities_specific_dim=1, reconstruction_option=option)
    networks = {name: Copy(0.0) for name in NAMES}, dict.fromkeys(NAMES, Same())
    model = mm.MMVAE(config, *networks, rngs=nnx.Rngs(0))
    model.private_log_var["c"].set_value(jnp.log(jnp.array([0.01])))  # a tenth of the prior's scale
    rng = np.random.default_rng(0)
    u = rng.normal(size=(600, 1))
    x = {name: np.hstack([u, rng.normal(size=(600, 1))]).astype(np.float32) for name in NAMES}
    (found,) = generations(
        model, MultimodalArrays(x), jax.random.key(0), givens=[("a", "b")], batch_size=600
    )
    for name in ("a", "b"):
        np.testing.assert_allclose(found.data[name], x[name], atol=1e-3)
    shared, private = np.asarray(found.data["c"]).T
    np.testing.assert_allclose(shared, u[:, 0], atol=1e-3)
    scale = 1.0 if option == "joint_prior" else 0.1
    np.testing.assert_allclose([private.mean(), private.std()], [0, scale], atol=0.15 * scale)
    assert abs(np.corrcoef(private, x["c"][:, 1])[0, 1]) < 0.2
