"""Columns outside memory give the batches that the same values give in memory."""

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import chex
import h5py
import numpy as np
import pytest
from PIL import Image

from mmvae_jax.data import (
    Column,
    ImageFiles,
    IndexedColumn,
    MultimodalArrays,
    batches,
    eval_batches,
    num_examples,
    read_rows,
)

SIZE = 13
VALUES = np.random.default_rng(0).integers(0, 256, (SIZE, 5, 4, 3), np.uint8)
Write = Callable[[Path], Column]


def np_load(folder: Path) -> Column:
    np.save(folder / "values.npy", VALUES)
    return np.load(folder / "values.npy", mmap_mode="r")


def np_memmap(folder: Path) -> Column:
    VALUES.tofile(folder / "values.bin")
    return np.memmap(folder / "values.bin", np.uint8, "r", shape=VALUES.shape)


def hdf5(folder: Path, values: np.ndarray = VALUES, **storage) -> Column:
    with h5py.File(folder / "values.h5", "w") as file:
        file.create_dataset("train/images", data=values, **storage)
    return h5py.File(folder / "values.h5")["train/images"]  # Keeps its file open.


def compressed_hdf5(folder: Path) -> Column:
    return hdf5(folder, chunks=(4, *VALUES.shape[1:]), compression="gzip")


def png(folder: Path) -> Column:
    files = [folder / f"{row:02}.png" for row in range(SIZE)]
    for file, image in zip(files, VALUES, strict=True):
        Image.fromarray(image).save(file)
    return ImageFiles(files)


def indexed(folder: Path) -> Column:
    return IndexedColumn(VALUES[::-1], np.arange(SIZE)[::-1])


def indexed_hdf5(folder: Path) -> Column:
    return IndexedColumn(hdf5(folder, VALUES[::-1]), np.arange(SIZE)[::-1])


@dataclass(frozen=True)
class Bare:
    """The least that a column needs: a shape, a type, and slices of rows."""

    shape: tuple[int, ...] = VALUES.shape
    dtype: np.dtype = VALUES.dtype

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        assert rows.step is None
        return VALUES[rows]


def bare(folder: Path) -> Column:
    return Bare()


COLUMNS = [np_load, np_memmap, hdf5, compressed_hdf5, png, indexed, indexed_hdf5, bare]


@pytest.fixture(params=COLUMNS, ids=lambda write: write.__name__)
def column(request, tmp_path) -> Column:
    return request.param(tmp_path)


def test_batches_are_those_of_the_values_in_memory(column):
    assert isinstance(column, Column)
    inside = MultimodalArrays({"image": VALUES}, labels=np.arange(SIZE))
    outside = inside._replace(data={"image": column})
    assert num_examples(outside) == SIZE
    for pair in (
        [list(batches(dataset, 4, seed=0, num_steps=7)) for dataset in (inside, outside)],
        [list(eval_batches(dataset, 4)) for dataset in (inside, outside)],
    ):
        chex.assert_trees_all_equal(*pair)
        assert all(type(batch.data["image"]) is np.ndarray for batch in pair[1])
        assert all(batch.data["image"].dtype == np.uint8 for batch in pair[1])


@pytest.mark.parametrize(
    "rows",
    [
        np.array([3, 4, 5]),
        np.array([7, 2, 7, 0, 12, 2]),
        np.array([-1, 0, -SIZE]),
        np.array([5], np.uint8),
        np.array([], int),
        slice(None),
        slice(9, 2, -3),
    ],
    ids=str,
)
def test_rows_are_chosen_as_in_numpy(column, rows):
    np.testing.assert_array_equal(read_rows(column, rows), VALUES[rows], strict=True)


@pytest.mark.parametrize("row", [SIZE, -SIZE - 1])
def test_rows_out_of_range_are_refused(column, row):
    with pytest.raises(IndexError):
        read_rows(column, np.array([0, row]))


@pytest.mark.parametrize("write", [png, indexed])
def test_lazy_columns_take_slices_and_masks(tmp_path, write):
    column = write(tmp_path)
    for rows in (slice(2, 9, 3), slice(None, None, -1), np.arange(SIZE) % 2 == 0):
        np.testing.assert_array_equal(column[rows], VALUES[rows], strict=True)
    assert (column.dtype, column.ndim, len(column)) == (np.uint8, 4, SIZE)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(column))[:], VALUES)


def test_lazy_columns_refuse_a_matrix_of_rows(tmp_path):
    with pytest.raises(ValueError, match="rows is"):
        png(tmp_path)[np.zeros((2, 2), int)]


def test_hdf5_keeps_types_and_any_shape(tmp_path):
    for values in (np.linspace(0, 1, 6), np.arange(6) % 2 == 0):
        read = read_rows(hdf5(tmp_path, values), np.array([5, 0]))
        np.testing.assert_array_equal(read, values[[5, 0]], strict=True)


def test_hdf5_is_read_by_several_threads(tmp_path):
    column = hdf5(tmp_path)
    rows = [np.random.default_rng(seed).permutation(SIZE) for seed in range(20)]
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda chosen: read_rows(column, chosen), rows)
        for chosen, read in zip(rows, results, strict=True):
            np.testing.assert_array_equal(read, VALUES[chosen])


def test_an_indexed_column_of_any_integers_and_of_itself():
    index = np.array([6, 0, 0, 3, 2])
    for dtype in (np.int64, np.int32, np.uint8):
        column = IndexedColumn(VALUES, index.astype(dtype))
        np.testing.assert_array_equal(column[:], VALUES[index])
    twice = IndexedColumn(column, np.array([3, 4, 4]))
    np.testing.assert_array_equal(twice[:], VALUES[index][[3, 4, 4]])


@pytest.mark.parametrize(
    ("error", "message", "index"),
    [
        (ValueError, r"index is float64\[2\]", np.array([0.0, 1.0])),
        (ValueError, r"index is int64\[1, 2\]", np.array([[0, 1]])),
        (IndexError, f"index is 0 to {SIZE}", np.array([0, SIZE])),
        (IndexError, "index is -1 to 1", np.array([-1, 1])),
    ],
)
def test_an_index_that_does_not_fit_is_refused(error, message, index):
    with pytest.raises(error, match=message):
        IndexedColumn(VALUES, index)
