"""PolyDigits: contents of modalities and splits, and the effect of the seed."""

import sys

import chex
import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmvae_jax.data import decode_words, num_examples, polydigits
from mmvae_jax.data.datasets.digit_words import WORDS

IMAGES = [f"m{m}" for m in range(5)]


@pytest.fixture(scope="module")
def dataset():
    return polydigits(5, num_pairings=2, text=True, seed=0)


def test_shapes_and_ranges(dataset):
    for split in (dataset.train, dataset.test):
        size = num_examples(split)
        assert list(split.data) == [*IMAGES, "word"]
        for name in IMAGES:
            chex.assert_shape(split.data[name], (size, 16, 16, 3))
            chex.assert_type(split.data[name], np.float32)
            assert split.data[name].min() >= 0
            assert split.data[name].max() <= 1
        chex.assert_shape(split.data["word"], (size, 8, 71))
        chex.assert_type(split.data["word"], np.float32)
        assert split.mask is None


def test_no_digit_is_both_trained_on_and_tested(dataset):
    for name in IMAGES:
        train, test = set(dataset.train_sources[name]), set(dataset.test_sources[name])
        assert not train & test
        assert train | test == set(range(1797))
    assert set(dataset.train_sources["m0"]) == set(dataset.train_sources["m4"])


def test_the_split_is_stratified(dataset):
    _, classes = load_digits(return_X_y=True)
    share = np.bincount(dataset.test.labels) / np.bincount(classes)
    np.testing.assert_allclose(share, 0.2, atol=0.005)  # one digit of 180 is 0.0056


def test_modalities_share_the_class_and_nothing_else(dataset):
    _, classes = load_digits(return_X_y=True)
    for split, sources in (
        (dataset.train, dataset.train_sources),
        (dataset.test, dataset.test_sources),
    ):
        for name in IMAGES:
            np.testing.assert_array_equal(classes[sources[name]], split.labels)
        assert decode_words(split.data["word"]) == [WORDS[c] for c in split.labels]
    # Two shuffles of a class of about 144 agree in one place on average: 10 of 1,437 in all.
    assert np.mean(dataset.train_sources["m0"] == dataset.train_sources["m1"]) < 0.02


def test_a_pairing_uses_every_digit_once_in_every_modality(dataset):
    size = num_examples(dataset.train) // 2
    for name in IMAGES:
        first, second = dataset.train_sources[name].reshape(2, size)
        assert len(set(first)) == len(set(second)) == size
        assert np.mean(first == second) < 0.02
    assert not np.array_equal(dataset.train.data["m0"][:size], dataset.train.data["m0"][size:])


def test_the_picture_shows_the_digit_of_its_source(dataset):
    """Where the digit is, the brightness departs from the background's; nowhere else."""
    pixels, _ = load_digits(return_X_y=True)
    for name in IMAGES:
        ink = pixels.reshape(-1, 8, 8)[dataset.test_sources[name]].reshape(-1, 64) / 16
        brightness = dataset.test.data[name].reshape(-1, 8, 2, 8, 2, 3).mean((2, 4, 5))
        brightness = brightness.reshape(-1, 64)
        correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(ink, brightness, strict=True)]
        assert np.min(np.abs(correlation)) > 0.8
        assert len(set(np.sign(correlation))) == 1  # always darker, or always brighter


def test_the_seed_decides_everything(dataset):
    again = polydigits(5, num_pairings=2, text=True, seed=0)
    chex.assert_trees_all_equal(again, dataset)


def test_seeds_change_pairings_pictures_and_words_but_not_the_split(dataset):
    other = polydigits(2, num_pairings=2, text=True, seed=1)
    for ours, theirs in ((dataset.train, other.train), (dataset.test, other.test)):
        for name in other.train.data:
            assert not np.array_equal(ours.data[name], theirs.data[name])
    assert not np.array_equal(dataset.train_sources["m0"], other.train_sources["m0"])
    assert set(dataset.test_sources["m0"]) == set(other.test_sources["m0"])


def test_more_modalities_or_pairings_change_nothing_else(dataset):
    fewer = polydigits(2, num_pairings=1, text=True, seed=0)
    for name in fewer.test.data:
        np.testing.assert_array_equal(fewer.test.data[name], dataset.test.data[name])
    more = polydigits(2, num_pairings=2, seed=0)
    np.testing.assert_array_equal(more.train.data["m1"], dataset.train.data["m1"])


@pytest.mark.parametrize(
    "settings",
    [{"num_modalities": 1}, {"num_modalities": 6}, {"num_pairings": 0}, {"seed": -1}],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings):
    ((field, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        polydigits(**settings)


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"mmvae_jax\[experiments\]"):
        polydigits()
