"""Pairs share a class, use every row as often, and are decided by the seed."""

import numpy as np
import pytest

from mmvae_jax.data import IndexedColumn, MultimodalArrays, pair_by_label, pairs_digest

VALUES = np.random.default_rng(0).random((7, 2, 3), np.float32)
INDEX = np.array([6, 0, 0, 3, 2, 6, 1, 5, 4, 4])
LABELS = {
    "left": np.repeat(np.arange(3), [5, 2, 9])[::-1],
    "middle": np.repeat(np.arange(3), [4, 8, 6]),
    "right": np.tile(np.arange(3), 7),
}
SIZES = np.array([4, 2, 6])  # the smallest counts of each class


def test_pairs_share_a_class_and_use_its_first_rows_equally_often():
    rows = pair_by_label(LABELS, 4, seed=0)
    for name, labels in LABELS.items():
        np.testing.assert_array_equal(labels[rows[name]], np.repeat(np.arange(3), 4 * SIZES))
        used, counts = np.unique(rows[name], return_counts=True)
        assert (counts == 4).all()
        first = [np.flatnonzero(labels == c)[:size] for c, size in enumerate(SIZES)]
        np.testing.assert_array_equal(used, np.sort(np.concatenate(first)))


def test_each_pairing_is_a_permutation_of_its_own():
    rows = pair_by_label(LABELS, 4, seed=0)
    of_last_class = {name: found[4 * 6 :].reshape(4, 6) for name, found in rows.items()}
    for pairings in of_last_class.values():
        assert (np.sort(pairings, axis=1) == np.sort(pairings[0])).all()
        assert len(np.unique(pairings, axis=0)) > 1
    left, right = (np.argsort(np.argsort(of_last_class[name])) for name in ("left", "right"))
    assert (left != right).any()  # Shuffled alike, modalities would keep their first partners.


def test_max_per_class_limits_the_rows():
    rows = pair_by_label(LABELS, 1, seed=0, max_per_class=3)
    assert np.bincount(LABELS["left"][rows["left"]]).tolist() == [3, 2, 3]


@pytest.mark.parametrize("seed", [5, (5, 1)])
def test_the_seed_decides(seed):
    def digest(seed) -> str:
        rows = pair_by_label(LABELS, 4, seed=seed)
        columns = {name: IndexedColumn(np.zeros(21), index) for name, index in rows.items()}
        return pairs_digest(MultimodalArrays(columns))

    assert digest(seed) == digest(seed)
    assert digest(seed) != digest(6)


def test_a_digest_depends_on_the_pairs_alone():
    data = {"a": IndexedColumn(VALUES, INDEX), "b": IndexedColumn(VALUES, INDEX[::-1])}
    digest = pairs_digest(MultimodalArrays(data))
    for same in (
        {"b": data["b"], "a": data["a"]},
        {**data, "c": VALUES[INDEX]},
        {"a": IndexedColumn(1 - VALUES, INDEX.astype(np.uint8)), "b": data["b"]},
    ):
        assert pairs_digest(MultimodalArrays(same)) == digest
    for other in (
        {"a": data["b"], "b": data["a"]},
        {"a": data["a"]},
        {"a": IndexedColumn(VALUES, INDEX[:-1]), "b": IndexedColumn(VALUES, INDEX[:-1])},
    ):
        assert pairs_digest(MultimodalArrays(other)) != digest


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("num_pairings is 0", lambda: pair_by_label(LABELS, 0, seed=0)),
        ("max_per_class is 0", lambda: pair_by_label(LABELS, 1, seed=0, max_per_class=0)),
        (
            "labels have the classes",
            lambda: pair_by_label({"a": np.arange(3), "b": np.arange(2)}, 1, seed=0),
        ),
        (
            r"data is a dict of \['a'\]",
            lambda: pairs_digest(MultimodalArrays({"a": VALUES})),
        ),
    ],
)
def test_bad_arguments_are_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
