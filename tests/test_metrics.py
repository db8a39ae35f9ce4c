"""Coherence against hand counts and chance, the classifier and the probe on known problems."""

import sys

import chex
import jax
import numpy as np
import pytest

from mmvae_jax.data.polydigits import polydigits
from mmvae_jax.metrics import classifier_networks
from mmvae_jax.metrics.classifier import train_classifier
from mmvae_jax.metrics.coherence import (
    conditional_coherence,
    cross_coherence_mean,
    joint_coherence,
)
from mmvae_jax.metrics.probe import latent_probe


def test_conditional_coherence_by_hand():
    labels = np.array([0, 1, 2, 3])
    predicted = {
        "image": {"image": np.array([0, 1, 2, 3]), "word": np.array([0, 1, 2, 9])},
        "word": {"image": np.array([1, 1, 1, 1]), "word": np.array([9, 9, 9, 9])},
    }
    coherence = conditional_coherence(predicted, labels)
    assert coherence == {
        "image": {"image": 1.0, "word": 0.75},
        "word": {"image": 0.25, "word": 0.0},
    }
    assert cross_coherence_mean(coherence) == (0.75 + 0.25) / 2


def test_joint_coherence_by_hand():
    predicted = {
        "a": np.array([1, 2, 3, 4, 5]),
        "b": np.array([1, 2, 3, 0, 5]),
        "c": np.array([1, 0, 3, 0, 5]),
    }
    assert joint_coherence(predicted) == 3 / 5


def test_joint_coherence_of_independent_modalities_is_chance():
    num_samples, chance = 100_000, 4.0 ** (1 - 3)
    rng = np.random.default_rng(0)
    predicted = {name: rng.integers(4, size=num_samples) for name in "abc"}
    standard_error = np.sqrt(chance * (1 - chance) / num_samples)
    assert abs(joint_coherence(predicted) - chance) < 4 * standard_error


def test_coherence_takes_the_classifiers_arrays():
    predicted = {"image": {"word": jax.numpy.array([1, 2])}}
    assert conditional_coherence(predicted, np.array([1, 3])) == {"image": {"word": 0.5}}


def test_coherence_refuses_what_does_not_fit():
    two, three = np.zeros(2, int), np.zeros(3, int)
    with pytest.raises(ValueError, match=r"predicted\['a'\]\['c'\] has 3, labels has 2"):
        conditional_coherence({"a": {"b": two, "c": three}}, two)
    with pytest.raises(ValueError, match=r"predicted\['b'\] has 3"):
        joint_coherence({"a": two, "b": three})
    with pytest.raises(ValueError, match="needs two modalities"):
        joint_coherence({"a": two})
    with pytest.raises(ValueError, match="no pair of different modalities"):
        cross_coherence_mean({"a": {"a": 1.0}})


def make_patterns(num_examples: int, seed: int, shape=(4, 4, 1)):
    """Noisy copies of three random patterns, and which pattern each is."""
    patterns = np.random.default_rng(0).random((3, *shape))
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=num_examples)
    x = patterns[labels] + 0.1 * rng.standard_normal((num_examples, *shape))
    return x.astype(np.float32), labels


@pytest.mark.parametrize("shape", [(4, 4, 3), (5, 7), (12,)])
def test_the_classifier_learns_examples_of_any_shape(shape):
    x, labels = make_patterns(600, seed=1, shape=shape)
    classifier = train_classifier(
        x, labels, num_classes=3, key=jax.random.key(0), num_steps=200, num_hidden=32
    )
    x, labels = make_patterns(200, seed=2, shape=shape)
    chex.assert_shape(classifier.predict(x), (200,))
    assert classifier.accuracy(x, labels) > 0.99


def test_accuracy_is_the_share_of_predicted_labels():
    x, labels = make_patterns(100, seed=1)
    classifier = train_classifier(x, labels, num_classes=3, key=jax.random.key(0), num_steps=1)
    predicted = np.array(classifier.predict(x))
    assert classifier.accuracy(x, predicted) == 1.0
    predicted[:25] = (predicted[:25] + 1) % 3
    assert classifier.accuracy(x, predicted) == 0.75


def test_the_key_decides_the_classifier_and_shapes_the_compilation(monkeypatch):
    x, labels = make_patterns(100, seed=1)
    traces = []
    forward = classifier_networks.MLP.__call__

    def counted(network, x):
        traces.append(len(x))
        return forward(network, x)

    monkeypatch.setattr(classifier_networks.MLP, "__call__", counted)

    def train(seed: int, learning_rate: float):
        return train_classifier(
            x,
            labels,
            num_classes=3,
            key=jax.random.key(seed),
            num_steps=7,
            learning_rate=learning_rate,
        ).params

    first = train(0, 1e-3)
    num_traces = len(traces)
    assert num_traces > 0
    chex.assert_trees_all_equal(first, train(0, 1e-3))
    for other in (train(1, 1e-3), train(0, 1e-2)):
        with pytest.raises(AssertionError):
            chex.assert_trees_all_close(first, other)
    assert len(traces) == num_traces


def test_the_classifier_refuses_what_does_not_fit():
    x, labels = make_patterns(10, seed=1)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="x has 10 rows and labels has 9"):
        train_classifier(x, labels[:9], num_classes=3, key=key)
    with pytest.raises(ValueError, match="num_classes=2 they must lie in 0 to 1"):
        train_classifier(x, np.full(10, 2), num_classes=2, key=key)
    with pytest.raises(ValueError, match="must lie in 0 to 2"):
        train_classifier(x, np.full(10, -1), num_classes=3, key=key)
    classifier = train_classifier(x, labels, num_classes=3, key=key, num_steps=1)
    with pytest.raises(ValueError, match=r"shape \(2, 8, 1\)"):
        classifier.predict(x.reshape(10, 2, 8, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["m0", "m1", "m2", "m3", "m4", "word"])
def test_unseen_polydigits_are_recognised(name):
    dataset = polydigits(5, text=True)
    classifier = train_classifier(
        dataset.train.data[name], dataset.train.labels, num_classes=10, key=jax.random.key(0)
    )
    assert classifier.accuracy(dataset.test.data[name], dataset.test.labels) > 0.95


def make_latents(num_examples: int, seed: int):
    labels = np.arange(num_examples) % 4
    z = np.random.default_rng(seed).standard_normal((num_examples, 6)).astype(np.float32)
    z[:, 0] += 2 * (labels // 2)
    z[:, 1] += 2 * (labels % 2)
    return z, labels


def test_the_probe_reaches_the_best_possible_accuracy():
    """Two independent axes, each cut in the middle of means 2 apart: right with Phi(1)^2."""
    train, test = make_latents(4000, seed=0), make_latents(20_000, seed=1)
    best = 0.8413447**2
    standard_error = np.sqrt(best * (1 - best) / 20_000)
    assert abs(latent_probe(*train, *test) - best) < 4 * standard_error


def test_the_probe_does_not_see_the_scale_of_an_axis():
    (train_z, train_labels), (test_z, test_labels) = make_latents(400, 0), make_latents(400, 1)
    scale = np.array([1e-3, 1, 1, 1, 1, 1e3], np.float32)
    plain = latent_probe(train_z, train_labels, test_z, test_labels)
    scaled = latent_probe(train_z * scale + 5, train_labels, test_z * scale + 5, test_labels)
    assert abs(plain - scaled) <= 2 / 400  # two latents at a boundary may change sides


def test_the_probe_of_noise_is_at_chance():
    """With 12 latents of 100 axes to learn from, only those of the training set can be told."""
    rng = np.random.default_rng(0)
    z, test_z = rng.standard_normal((12, 100)), rng.standard_normal((2000, 100))
    labels, test_labels = np.arange(12) % 4, rng.integers(4, size=2000)
    standard_error = np.sqrt(0.25 * 0.75 / 2000)
    assert abs(latent_probe(z, labels, test_z, test_labels) - 0.25) < 4 * standard_error
    assert latent_probe(z, labels, z, labels) == 1


def test_without_scikit_learn_the_probe_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ImportError, match=r"mmvae_jax\[experiments\]"):
        latent_probe(*make_latents(8, 0), *make_latents(8, 1))
