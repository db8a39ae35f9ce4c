"""A classifier's file and features."""

import json

import chex
import jax
import numpy as np
import pytest

from mmvae_jax.metrics.classifier import load_classifier, train_classifier


def make_classifier(seed=0):
    rng = np.random.default_rng(0)
    x, labels = rng.random((50, 4, 3)).astype(np.float32), rng.integers(3, size=50)
    classifier = train_classifier(
        x, labels, num_classes=3, key=jax.random.key(seed), num_steps=5, num_hidden=8
    )
    return classifier, x


def test_a_classifier_comes_back_as_it_was(tmp_path):
    classifier, x = make_classifier()
    classifier.save(tmp_path / "digits.npz")
    loaded = load_classifier(tmp_path / "digits.npz")
    assert loaded.input_dim == classifier.input_dim == (4, 3)
    chex.assert_trees_all_equal(loaded.params, classifier.params)
    np.testing.assert_array_equal(loaded.predict(x), classifier.predict(x))
    np.testing.assert_array_equal(loaded.features(x), classifier.features(x))
    assert [path.name for path in tmp_path.iterdir()] == ["digits.npz"]


def test_saving_again_replaces_the_file(tmp_path):
    for seed in (0, 1):
        classifier, _ = make_classifier(seed)
        classifier.save(tmp_path / "digits.npz")
    chex.assert_trees_all_equal(load_classifier(tmp_path / "digits.npz").params, classifier.params)


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match=r"expected 'mmvae_jax\.classifier"):
        load_classifier(tmp_path / "other.npz")
    np.savez(tmp_path / "newer.npz", settings=np.array(json.dumps({"format": "2"})))
    with pytest.raises(ValueError, match="format '2'"):
        load_classifier(tmp_path / "newer.npz")


def test_classes_are_a_linear_function_of_features():
    classifier, x = make_classifier()
    features = np.asarray(classifier.features(x))
    assert features.shape == (50, 8)
    assert (features >= 0).all()
    last = jax.device_get(classifier.params["logits"])
    logits = features @ last["kernel"] + last["bias"]
    np.testing.assert_array_equal(logits.argmax(1), classifier.predict(x))
    with pytest.raises(ValueError, match="shape"):
        classifier.features(x[:, :2])
