"""Clustering scores of known groups, and the matching of clusters with classes."""

import itertools

import numpy as np
import pytest

from mmvae_jax.metrics import cluster_latents, matched_accuracy


def test_separate_groups_are_found_whatever_their_names():
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=300)
    z = 20 * np.eye(4)[labels] + rng.standard_normal((300, 4))
    assert cluster_latents(z, labels, num_clusters=4) == (1.0, 1.0, 1.0)
    renamed = np.array([7, 3, 9, 1])[labels]
    assert cluster_latents(z, renamed, num_clusters=4).accuracy == 1


def test_latents_without_classes_score_chance():
    rng = np.random.default_rng(0)
    labels, z = rng.integers(2, size=4000), rng.standard_normal((4000, 3))
    accuracy, nmi, ari = cluster_latents(z, labels, num_clusters=2)
    assert 0.5 <= accuracy < 0.5 + 4 * np.sqrt(0.25 / 4000)
    assert max(nmi, abs(ari)) < 0.01


def test_the_best_of_all_matchings_is_found():
    rng = np.random.default_rng(0)
    clusters, labels = rng.integers(4, size=60), rng.integers(4, size=60)
    every = [
        np.mean(np.array(order)[clusters] == labels) for order in itertools.permutations(range(4))
    ]
    np.testing.assert_allclose(matched_accuracy(clusters, labels), max(every))
    assert max(every) > np.median(every)


def test_a_class_is_matched_with_one_cluster_alone():
    assert matched_accuracy(np.array([0, 0, 1, 1]), np.array([5, 5, 5, 5])) == 0.5
    assert matched_accuracy(np.array([0, 0, 0, 0]), np.array([5, 5, 5, 6])) == 0.75


def test_the_seed_decides():
    rng = np.random.default_rng(0)
    labels, z = rng.integers(5, size=200), rng.standard_normal((200, 6))
    runs = [cluster_latents(z, labels, num_clusters=5, seed=seed) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="clusters has 3 examples and labels has 2"):
        matched_accuracy(np.zeros(3, int), np.zeros(2, int))
    with pytest.raises(ValueError, match="clusters has 0 examples"):
        matched_accuracy(np.zeros(0, int), np.zeros(0, int))
    with pytest.raises(ValueError, match="NaN"):
        cluster_latents(np.full((5, 2), np.nan), np.zeros(5, int), num_clusters=2)
