"""MNIST-SVHN(-Text): pairs share a digit, and images are rows of the files."""

import chex
import numpy as np
import pytest
from helpers.official_files import (
    TEST_LABELS,
    TRAIN_LABELS,
    real_mnist,
    svhn_labels,
    write_mnist,
    write_svhn,
)

from mmvae_jax.data import (
    IndexedColumn,
    decode_words,
    missing_at_random,
    missing_by_label,
    mnist,
    mnist_svhn,
    num_examples,
    pair_by_label,
    pairs_digest,
    take,
)
from mmvae_jax.data.datasets.digit_words import WORDS

PAIRINGS = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def images(root):
    return {"mnist": write_mnist(root / "mnist"), "svhn": write_svhn(root / "svhn")}


@pytest.fixture(scope="module")
def dataset(root, images):
    return mnist_svhn(root, num_pairings=PAIRINGS, text=True)


def test_every_modality_shows_the_digit_of_the_label(dataset, images):
    sources = {
        "train": {"mnist": TRAIN_LABELS, "svhn": svhn_labels(60)},
        "test": {"mnist": TEST_LABELS, "svhn": svhn_labels(30)},
    }
    for split, labels in sources.items():
        found = getattr(dataset, split)
        assert list(found.data) == ["mnist", "svhn", "text"]
        smallest = np.minimum(*(np.bincount(of, minlength=10) for of in labels.values()))
        np.testing.assert_array_equal(np.bincount(found.labels), PAIRINGS * smallest)
        for name, of in labels.items():
            index = found.data[name].index
            np.testing.assert_array_equal(of[index], found.labels)
            pictures = images[name][split].reshape(len(of), *found.data[name].shape[1:])
            chex.assert_trees_all_equal(found.data[name][:], pictures[index])
        spelled = decode_words(found.data["text"][:])
        assert spelled == [WORDS[label] for label in found.labels]


def test_no_image_is_copied(dataset):
    for split in dataset:
        for column in split.data.values():
            assert isinstance(column, IndexedColumn)
            assert len(column.column) < len(column)


def test_the_seed_decides_the_pairs_and_text_does_not(root, images, dataset):
    def digests(**options) -> list[str]:
        splits = mnist_svhn(root, **{"num_pairings": PAIRINGS, **options})
        return [
            pairs_digest(split._replace(data={n: split.data[n] for n in ("mnist", "svhn")}))
            for split in splits
        ]

    first = digests()
    assert first == digests(text=True)
    assert first[0] != first[1]
    assert not set(first) & set(digests(seed=1))
    assert not set(first) & set(digests(num_pairings=PAIRINGS + 1))
    again = mnist_svhn(root, num_pairings=PAIRINGS, text=True)
    assert [*map(pairs_digest, again)] == [*map(pairs_digest, dataset)]


def test_parts_can_be_missing(dataset):
    half = missing_at_random(dataset.train, 0.5, seed=0)
    observed = np.stack([*half.mask.values()])
    assert observed.any(0).all()
    assert not observed.all(1).any()
    hidden = missing_by_label(dataset.train, {"svhn": [3, 4], "text": range(4)})
    np.testing.assert_array_equal(hidden.mask["svhn"], ~np.isin(hidden.labels, [3, 4]))
    batch = take(hidden, np.arange(8))
    assert num_examples(batch) == 8
    np.testing.assert_array_equal(batch.mask["text"], batch.labels >= 4)


def test_a_negative_seed_is_refused(root, images):
    with pytest.raises(ValueError, match="seed is -1"):
        mnist_svhn(root, seed=-1)


def test_the_published_numbers_of_pairs():
    splits = mnist(real_mnist())
    # How many of each digit SVHN's training split holds.
    counts = [4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659]
    rows = pair_by_label(
        {"mnist": splits.train.labels, "svhn": np.repeat(np.arange(10), counts)}, 30, seed=0
    )
    assert {len(found) for found in rows.values()} == {1_682_040}
