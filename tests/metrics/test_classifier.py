"""Training of classifiers, their files, features and networks, and chunks of examples."""

import json
from functools import partial

import chex
import jax
import numpy as np
import pytest
from helpers.official_files import real_mnist

from mmvae_jax.data import IndexedColumn, mnist, polydigits
from mmvae_jax.metrics import classifier as classifier_module
from mmvae_jax.metrics import (
    classifier_networks,
    load_classifier,
    load_classifiers,
    train_classifier,
)

IMAGE = (20, 24, 3)
NETWORKS = ("mlp", "conv")


def make_patterns(num_examples: int, seed: int, shape=(4, 4, 1)):
    """Returns noisy copies of three random patterns, and the pattern of each."""
    patterns = np.random.default_rng(0).random((3, *shape))
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=num_examples)
    x = patterns[labels] + 0.1 * rng.standard_normal((num_examples, *shape))
    return x.astype(np.float32), labels


@pytest.mark.slow
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

    def train(seed: int):
        key = jax.random.key(seed)
        return train_classifier(x, labels, num_classes=3, key=key, num_steps=7).params

    first = train(0)
    num_traces = len(traces)
    assert num_traces > 0
    chex.assert_trees_all_equal(first, train(0))
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(first, train(1))
    assert len(traces) == num_traces


@pytest.mark.slow
@pytest.mark.parametrize("name", ["m0", "m1", "m2", "m3", "m4", "word"])
def test_unseen_polydigits_are_recognised(name):
    dataset = polydigits(5, text=True)
    classifier = train_classifier(
        dataset.train.data[name], dataset.train.labels, num_classes=10, key=jax.random.key(0)
    )
    assert classifier.accuracy(dataset.test.data[name], dataset.test.labels) > 0.95


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
    with pytest.raises(ValueError, match=r"other\.npz, of format None"):
        load_classifier(tmp_path / "other.npz")
    np.savez(tmp_path / "newer.npz", settings=np.array(json.dumps({"format": "2"})))
    with pytest.raises(ValueError, match=r"newer\.npz, of format '2'"):
        load_classifier(tmp_path / "newer.npz")


def test_classes_are_a_linear_function_of_features():
    classifier, x = make_classifier()
    features = np.asarray(classifier.features(x))
    assert features.shape == (50, 8)
    assert (features >= 0).all()
    last = jax.device_get(classifier.params["logits"])
    logits = features @ last["kernel"] + last["bias"]
    np.testing.assert_array_equal(logits.argmax(1), classifier.predict(x))


def make_images(num_examples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_examples, *IMAGE), np.uint8)


def make_image_classifier(network="conv", x=None, labels=None, **options):
    x = make_images(40) if x is None else x
    labels = np.arange(len(x)) % 3 if labels is None else labels
    sizes = {"num_classes": 3, "num_steps": 3, "batch_size": 16, "num_hidden": 8} | options
    return train_classifier(x, labels, key=jax.random.key(0), network=network, **sizes)


class Watched:
    """A column that records the rows read from it."""

    def __init__(self, values: np.ndarray):
        self.values, self.shape, self.dtype, self.ndim = values, values.shape, values.dtype, 4
        self.read: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows):
        self.read.append(np.arange(len(self))[rows])
        return self.values[rows]


@pytest.mark.parametrize(
    ("input_dim", "network"),
    [
        ((20, 20, 1), "conv"),
        ((32, 32, 3), "conv"),
        ((19, 40, 3), "mlp"),
        ((16, 16, 3), "mlp"),
        ((28, 28), "mlp"),
        ((8, 71), "mlp"),
    ],
)
def test_large_images_get_convolutions(input_dim, network):
    assert classifier_networks.choose("auto", input_dim) == network


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_both_networks_come_back_as_they_were(tmp_path, network):
    classifier = make_image_classifier(network)
    classifier.save(tmp_path / "image.npz")
    loaded = load_classifier(tmp_path / "image.npz")
    assert (loaded.network, loaded.input_dim) == (network, IMAGE)
    chex.assert_trees_all_equal(loaded.params, classifier.params)
    x = make_images(9, seed=1)
    np.testing.assert_array_equal(loaded.features(x), classifier.features(x))


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_bytes_are_intensities(network):
    x = make_images(40)
    as_floats = (x / 255).astype(np.float32)
    of_bytes, of_floats = (make_image_classifier(network, given) for given in (x, as_floats))
    # A single rounding may differ: the device divides in single precision.
    chex.assert_trees_all_close(of_bytes.params, of_floats.params, atol=1e-5)
    np.testing.assert_allclose(of_bytes.features(x), of_bytes.features(as_floats), atol=1e-5)
    np.testing.assert_array_equal(of_bytes.predict(x), of_bytes.predict(as_floats))


@pytest.mark.slow
def test_a_column_is_the_array_that_it_stands_for():
    few, index = make_images(10), np.random.default_rng(0).integers(10, size=40)
    column, array = IndexedColumn(few, index), few[index]
    classifier = make_image_classifier(x=column)
    chex.assert_trees_all_equal(classifier.params, make_image_classifier(x=array).params)
    np.testing.assert_array_equal(classifier.features(column), classifier.features(array))
    labels = np.arange(40) % 3
    assert classifier.accuracy(column, labels) == np.mean(classifier.predict(array) == labels)


def test_no_more_rows_are_read_than_asked_for():
    x = make_images(300)
    watched = Watched(x)
    classifier = make_image_classifier("mlp", watched, max_examples=50)
    read = np.concatenate(watched.read)  # a column of an unknown kind is read by slices
    assert len(np.unique(read)) == len(read) == 50
    assert (np.diff(read) > 0).all()
    labels = np.arange(300) % 3
    same = make_image_classifier("mlp", x[read], labels[read])
    chex.assert_trees_all_equal(same.params, classifier.params)


def test_chunks_give_what_the_whole_gives(monkeypatch):
    classifier = make_image_classifier("mlp")
    x = make_images(30, seed=1)
    features = np.asarray(classifier_module._features(classifier, x))
    classes = np.asarray(classifier_module._predict(classifier, x))
    monkeypatch.setattr(classifier_module, "CHUNK", 8)
    watched = Watched(x)
    np.testing.assert_array_equal(classifier.predict(watched), classes)
    assert [*map(len, watched.read)] == [8, 8, 8, 6]
    for given in (x, jax.numpy.asarray(x)):
        np.testing.assert_allclose(classifier.features(given), features, atol=1e-5)
    for num in (0, 1, 8, 9):
        np.testing.assert_array_equal(classifier.predict(x[:num]), classes[:num])


def test_one_program_predicts_any_number_of_examples(monkeypatch):
    classifier = make_image_classifier("mlp", num_hidden=9)  # no other test has compiled it
    x = make_images(1100)
    traces = []
    forward = classifier_networks.MLP.features

    def counted(network, x):
        traces.append(len(x))
        return forward(network, x)

    monkeypatch.setattr(classifier_networks.MLP, "features", counted)
    sizes = (1, 7, 512, 513, 1100)
    assert [len(classifier.predict(x[:num])) for num in sizes] == [*sizes]
    assert traces == [classifier_module.CHUNK]


def test_convolutions_learn_real_digits():
    train, test = mnist(real_mnist())
    classifier = train_classifier(
        train.data["image"],
        train.labels,
        num_classes=10,
        key=jax.random.key(0),
        num_steps=60,
        batch_size=64,
        max_examples=3000,
    )
    assert classifier.network == "conv"
    assert classifier.accuracy(test.data["image"][:500], test.labels[:500]) > 0.8


def test_what_does_not_fit_is_refused():
    x, labels = make_patterns(10, seed=1)
    train = partial(train_classifier, num_classes=3, key=jax.random.key(0), num_steps=1)
    with pytest.raises(ValueError, match="x has 10 rows and labels has 9"):
        train(x, labels[:9])
    for label in (3, -1):
        with pytest.raises(ValueError, match=f"labels run from {label} to {label}"):
            train(x, np.full(10, label))
    with pytest.raises(ValueError, match=r"x has rows of shape \(2, 8, 1\)"):
        train(x, labels).predict(x.reshape(10, 2, 8, 1))
    with pytest.raises(ValueError, match="network is 'resnet', for rows of shape"):
        make_image_classifier("resnet")
    with pytest.raises(ValueError, match="network is 'conv', for rows of shape"):
        make_image_classifier(x=make_images(3)[..., 0])
    with pytest.raises(ValueError, match="max_examples is 0"):
        make_image_classifier(max_examples=0)
    classes = np.zeros((40, 5), np.int32)
    with pytest.raises(ValueError, match="x has dtype int32"):
        make_image_classifier("mlp", classes)
    classifier = make_image_classifier("mlp", classes.astype(np.float32))
    with pytest.raises(ValueError, match="x has dtype int32"):
        classifier.predict(classes)


def test_a_folder_has_a_classifier_for_each_modality(tmp_path):
    given = {"a": make_image_classifier("mlp"), "b": make_image_classifier()}
    for name, classifier in given.items():
        classifier.save(tmp_path / f"{name}.npz")
    loaded = load_classifiers(tmp_path, {"b": IMAGE, "a": IMAGE})
    assert [*loaded] == ["b", "a"]
    for name, classifier in loaded.items():
        chex.assert_trees_all_equal(classifier.params, given[name].params)
    assert [*load_classifiers(tmp_path, {"b": IMAGE})] == ["b"]
    with pytest.raises(ValueError, match=r"folder is '.*', without \['c\.npz'\]"):
        load_classifiers(tmp_path, {"a": IMAGE, "c": IMAGE})
    with pytest.raises(ValueError, match=r"input_dims\['b'\] is \(20, 24, 1\)"):
        load_classifiers(tmp_path, {"a": IMAGE, "b": (20, 24, 1)})
    with pytest.raises(ValueError, match=r"folder is .*nowhere"):
        load_classifiers(tmp_path / "nowhere", {"a": IMAGE})
