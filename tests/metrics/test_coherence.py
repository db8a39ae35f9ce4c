"""Coherence by hand counts and at chance, from subsets, with missing modalities, by class."""

import numpy as np
import pytest

from mmvae_jax.metrics import (
    Tally,
    averages,
    coherence_by_size,
    conditional_coherence,
    conditional_tallies,
    cross_coherence_mean,
    joint_coherence,
    joint_tally,
    subsets,
)

LABELS = np.array([0, 0, 0, 1])
PREDICTED = {("a", "b"): {"c": np.array([0, 0, 5, 5]), "a": LABELS}, "c": {"a": LABELS}}


def test_there_are_two_to_the_m_minus_two_subsets():
    for size in range(1, 6):
        found = subsets("abcde"[:size])
        assert len(set(found)) == len(found) == 2**size - 2


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


def test_macro_weighs_classes_alike():
    micro = conditional_coherence(PREDICTED, LABELS)
    macro = conditional_coherence(PREDICTED, LABELS, average="macro")
    assert micro["a", "b"]["c"] == 2 / 4
    assert macro["a", "b"]["c"] == (2 / 3 + 0) / 2
    assert micro["c"]["a"] == macro["c"]["a"] == 1


@pytest.mark.parametrize("missing", ["a", "b", "c"])
def test_examples_that_miss_a_given_or_generated_modality_are_left_out(missing):
    """Wherever the one example that misses something misses it, it stays out of a, b -> c."""
    mask = {name: np.ones(4, bool) for name in "abc"}
    mask[missing] = np.array([True, True, False, True])
    coherence = conditional_coherence(PREDICTED, LABELS, mask=mask)
    assert coherence["a", "b"]["c"] == 2 / 3
    tallies = conditional_tallies(PREDICTED, LABELS, num_classes=2, mask=mask)
    assert tallies["c"]["a"].counts.sum() == (4 if missing == "b" else 3)


def test_shares_of_no_example_are_nan():
    mask = {"a": np.zeros(4, bool), "c": np.ones(4, bool)}
    for average in ("micro", "macro"):
        coherence = conditional_coherence({"a": {"c": LABELS}}, LABELS, mask=mask, average=average)
        assert np.isnan(coherence["a"]["c"])


def test_batches_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    labels, seen = rng.integers(4, size=90), rng.integers(4, size=90)
    whole = conditional_tallies({"a": {"b": seen}}, labels, num_classes=4)
    total = Tally(np.zeros(4, int), np.zeros(4, int))
    for rows in np.split(np.arange(90), [20, 50]):
        part = conditional_tallies({"a": {"b": seen[rows]}}, labels[rows], num_classes=4)
        total = total.merge(part["a"]["b"])
    np.testing.assert_array_equal(np.stack(total), np.stack(whole["a"]["b"]))
    assert averages(whole, "micro")["a"]["b"] == np.mean(labels == seen)
    by_class = [np.mean(seen[labels == c] == c) for c in range(4)]
    np.testing.assert_allclose(averages(whole, "macro")["a"]["b"], np.mean(by_class))


def test_summaries_leave_out_what_was_given():
    coherence = {
        ("a",): {"a": 1.0, "b": 0.5, "c": 0.7},
        ("a", "b"): {"a": 1.0, "b": 1.0, "c": 0.9},
        "c": {"a": 0.3},
    }
    assert cross_coherence_mean(coherence) == np.mean([0.5, 0.7, 0.9, 0.3])
    assert coherence_by_size(coherence) == {1: np.mean([0.5, 0.7, 0.3]), 2: 0.9}


def test_joint_coherence_by_class():
    """Class 0: two of two agree. Class 1: shown three times, in agreement twice. Class 2: once."""
    predicted = {"a": np.array([0, 1, 1]), "b": np.array([0, 1, 2])}
    counted = joint_tally(predicted, num_classes=4)
    assert counted.counts.tolist() == [2, 3, 1, 0]
    assert counted.hits.tolist() == [2, 2, 0, 0]
    np.testing.assert_allclose(joint_coherence(predicted), 2 / 3)
    np.testing.assert_allclose(joint_coherence(predicted, average="macro"), (1 + 2 / 3 + 0) / 3)


def test_effective_classes_count_those_of_the_right_examples():
    def effective(*hits):
        return Tally(np.array(hits), np.array([100, 100, 100])).effective_classes

    assert effective(7, 0, 0) == 1  # always the same class, however coherent
    np.testing.assert_allclose(effective(5, 5, 5), 3)
    p = np.array([1, 2, 5]) / 8
    np.testing.assert_allclose(effective(1, 2, 5), np.prod(p**-p))
    assert effective(0, 0, 0) == 0


def test_what_does_not_fit_is_refused():
    two, three = np.zeros(2, int), np.zeros(3, int)
    with pytest.raises(ValueError, match=r"predicted\['a'\]\['c'\] has 3, labels has 2"):
        conditional_coherence({"a": {"b": two, "c": three}}, two)
    with pytest.raises(ValueError, match=r"predicted\['b'\] has 3"):
        joint_coherence({"a": two, "b": three})
    with pytest.raises(ValueError, match=r"predicted is of \['a'\]"):
        joint_coherence({"a": two})
    with pytest.raises(ValueError, match=r"coherence is {'a': {'a': 1.0}}"):
        cross_coherence_mean({"a": {"a": 1.0}})
    with pytest.raises(ValueError, match="classes run from 0 to 1"):
        conditional_tallies(PREDICTED, LABELS, num_classes=1)
    with pytest.raises(ValueError, match="classes run from 0 to 2"):
        joint_tally({"a": np.arange(3), "b": np.arange(3)}, num_classes=2)
    mask = {"a": np.ones(4, bool), "b": np.ones(4, bool), "c": np.ones(3, bool)}
    with pytest.raises(ValueError, match=r"mask\['c'\] has 3"):
        conditional_coherence(PREDICTED, LABELS, mask=mask)
