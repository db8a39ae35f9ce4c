"""Rows of modalities, matched by their names or by position."""

import itertools

import numpy as np
import pandas as pd
import pytest

import mmvae_jax as mm
from mmvae_jax.data import LazyColumn, read_rows

NAMES = [f"patient {number}" for number in range(12)]


def frame(names: list[str], *columns: str) -> pd.DataFrame:
    """Returns a frame whose values are the patients' numbers, plus 100 in each further column."""
    numbers = np.array([NAMES.index(name) for name in names], float)
    values = numbers[:, None] + 100 * np.arange(len(columns))
    return pd.DataFrame(values, index=names, columns=list(columns))


def numbers(table) -> np.ndarray:
    """Returns the first value of each observed row."""
    rows = np.flatnonzero(table.observed)
    return np.asarray(read_rows(table.values, rows)).reshape(len(rows), -1)[:, 0]


def test_rows_follow_their_names():
    """Permutations and subsets: every value stays with its patient, and so does the label."""
    rng = np.random.default_rng(0)
    orders = [[NAMES[i] for i in rng.permutation(12)[:size]] for size in (12, 7, 9)]
    source = {m: frame(names, "a", "b") for m, names in zip("xyz", orders, strict=True)}
    labels = pd.Series([NAMES.index(name) for name in reversed(NAMES)], index=NAMES[::-1])
    tables = mm.read_tables({**source, "labels": labels})
    patients = np.array([NAMES.index(name) for name in tables.index])
    assert tables.index.tolist() == list(dict.fromkeys(itertools.chain(*orders)))
    np.testing.assert_array_equal(tables.labels, patients)
    for m, names in zip("xyz", orders, strict=True):
        found = tables.modalities[m]
        np.testing.assert_array_equal(found.observed, np.isin(tables.index, names))
        np.testing.assert_array_equal(numbers(found), patients[found.observed])
        assert np.isnan(found.values[~found.observed]).all()


def test_rows_of_files_follow_their_names(tmp_path):
    names = {"x": [NAMES[i] for i in (2, 0, 1)], "y": NAMES[2:5]}
    for modality, found in names.items():
        frame(found, "a", "b").to_csv(tmp_path / f"{modality}.csv")
    tables = mm.read_tables(tmp_path)
    assert tables.index.tolist() == [NAMES[i] for i in (2, 0, 1, 3, 4)]
    assert numbers(tables.modalities["x"]).tolist() == [2, 0, 1]
    assert numbers(tables.modalities["y"]).tolist() == [2, 3, 4]


def test_classes_and_integers_of_missing_rows():
    source = {
        "x": frame(["patient 1", "patient 2"], "a"),
        "count": pd.Series([7, 8], index=["patient 2", "patient 3"]),
        "flag": pd.Series([True, True], index=["patient 2", "patient 3"]),
        "labels": pd.Series(["b", "a"], index=["patient 3", "patient 1"]),
    }
    tables = mm.read_tables(source)
    count, flag = tables.modalities["count"], tables.modalities["flag"]
    assert (count.values.tolist(), count.low, count.high) == ([-1, 7, 8], 7, 8)
    assert (flag.values.tolist(), flag.values.dtype) == ([False, True, True], bool)
    assert (tables.labels.tolist(), tables.label_names) == ([0, -1, 1], ("a", "b"))


def test_masks_belong_to_the_rows_of_their_source():
    one, other = frame(NAMES[:3], "a"), frame(NAMES[2::-1], "a")
    source = {"x": one, "y": other, "mask/y": np.array([False, True, True])}
    tables = mm.read_tables(source)
    assert tables.index.tolist() == NAMES[:3]
    assert tables.modalities["y"].observed.tolist() == [True, True, False]
    source = {"x": ["a", None, "b"], "mask/x": np.array([True, True, False])}
    assert mm.read_tables(source).modalities["x"].observed.tolist() == [True, False, False]


def test_arrays_beside_names_match_by_position():
    tables = mm.read_tables(
        {"x": frame(NAMES[:3], "a"), "y": frame(NAMES[:3], "b"), "z": np.arange(3)}
    )
    assert tables.index.tolist() == NAMES[:3]
    assert tables.modalities["z"].values.tolist() == [0, 1, 2]


def test_an_index_of_numbers_names_rows_only_if_it_is_out_of_order():
    """A shuffled series is matched with a frame whose index pandas has counted."""
    whole = frame(NAMES[:4], "a").reset_index(drop=True)
    kind = pd.Series(list("wxyz")).sample(frac=1, random_state=3)
    assert kind.index.tolist() != [0, 1, 2, 3]
    tables = mm.read_tables({"x": whole, "kind": kind})
    assert tables.modalities["kind"].values.tolist() == [0, 1, 2, 3]
    part = mm.read_tables({"x": whole.iloc[2:], "kind": kind})
    assert part.index.tolist() == ["2", "3", *(str(i) for i in kind.index if i < 2)]
    assert mm.read_tables({"x": whole, "kind": pd.Series(list("wxyz"))}).index is None


def test_columns_in_files_stay_there(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6.0).reshape(3, 2))
    tables = mm.read_tables(tmp_path).take(np.array([2, 0, 2]))
    assert isinstance(tables.modalities["x"].values, LazyColumn)
    np.testing.assert_array_equal(tables.modalities["x"].values[:], [[4, 5], [0, 1], [4, 5]])


def test_modalities_without_common_rows_are_said():
    source = {"x": frame(NAMES[:3], "a"), "y": frame(NAMES[1:2], "a"), "z": frame(NAMES[6:], "a")}
    with pytest.warns(UserWarning, match=r"source\['z'\] shares no row .*'patient 6'"):
        mm.read_tables(source)
