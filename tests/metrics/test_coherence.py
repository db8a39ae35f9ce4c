"""Coherence from subsets, with missing modalities, averaged over examples or classes."""

import numpy as np
import pytest

from mmvae_jax.metrics.coherence import (
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


def test_nothing_is_known_of_no_example():
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


def test_labels_must_be_classes():
    with pytest.raises(ValueError, match="num_classes=1 they must lie in 0 to 0"):
        conditional_tallies(PREDICTED, LABELS, num_classes=1)
    with pytest.raises(ValueError, match="classes run from 0 to 2"):
        joint_tally({"a": np.arange(3), "b": np.arange(3)}, num_classes=2)
    mask = {"a": np.ones(4, bool), "b": np.ones(4, bool), "c": np.ones(3, bool)}
    with pytest.raises(ValueError, match=r"mask\['c'\] has 3"):
        conditional_coherence(PREDICTED, LABELS, mask=mask)
