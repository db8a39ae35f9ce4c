"""Columns in files give the batches that the same values give in memory."""

import gc
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chex
import h5py
import numpy as np
import pytest
from PIL import Image

from mmvae_jax.data.arrays import MultimodalArrays, batches, num_examples, take
from mmvae_jax.data.eval_batches import eval_batches
from mmvae_jax.data.sources import Column, HDF5Array, ImageFiles

SIZE = 13
Write = Callable[[Path, np.ndarray], Column]


def images(num_channels: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (SIZE, 5, 4, num_channels), np.uint8)


def memory_mapped(folder: Path, values: np.ndarray) -> Column:
    np.save(folder / "values.npy", values)
    return np.load(folder / "values.npy", mmap_mode="r")


def hdf5(folder: Path, values: np.ndarray, **storage) -> Column:
    with h5py.File(folder / "values.h5", "w") as file:
        file.create_dataset("train/images", data=values, **storage)
    return HDF5Array(folder / "values.h5", "train/images")


def compressed_hdf5(folder: Path, values: np.ndarray) -> Column:
    return hdf5(folder, values, chunks=(4, *values.shape[1:]), compression="gzip")


def png(folder: Path, values: np.ndarray) -> Column:
    files = [folder / f"{row:02}.png" for row in range(len(values))]
    for file, image in zip(files, values, strict=True):
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file)
    return ImageFiles(files)


SOURCES = [memory_mapped, hdf5, compressed_hdf5, png]


@pytest.fixture(params=SOURCES, ids=lambda write: write.__name__)
def write(request) -> Write:
    return request.param


@pytest.mark.parametrize("num_channels", [1, 3])
def test_batches_are_those_of_the_values_in_memory(tmp_path, write, num_channels):
    values = images(num_channels)
    inside = MultimodalArrays({"image": values}, labels=np.arange(SIZE))
    outside = inside._replace(data={"image": write(tmp_path, values)})
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
        slice(2, 9, 3),
        slice(None, None, -1),
    ],
    ids=str,
)
def test_rows_are_chosen_as_in_numpy(tmp_path, write, rows):
    values = images(3)
    column = write(tmp_path, values)
    np.testing.assert_array_equal(column[rows], values[rows], strict=True)


def test_columns_say_what_they_hold(tmp_path, write):
    values = images(3)
    column = write(tmp_path, values)
    assert isinstance(column, Column)
    assert column.shape == values.shape
    assert (column.dtype, column.ndim, len(column)) == (np.uint8, 4, SIZE)


@pytest.mark.parametrize("write", [hdf5, png])
@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (np.array([0, SIZE]), IndexError, f"row {SIZE} is out of range: there are {SIZE} rows"),
        (np.array([-SIZE - 1]), IndexError, f"row {-SIZE - 1} is out of range"),
        (np.ones(SIZE, bool), ValueError, r"rows are bool\[13\]: give a slice or a vector of int"),
        (np.zeros((2, 2), int), ValueError, r"rows are int64\[2, 2\]"),
    ],
    ids=["past_the_end", "before_the_start", "mask", "matrix"],
)
def test_other_rows_are_refused(tmp_path, write, rows, error, message):
    with pytest.raises(error, match=message):
        write(tmp_path, images(3))[rows]


def test_hdf5_keeps_types_and_any_shape(tmp_path):
    with h5py.File(tmp_path / "values.h5", "w") as file:
        file["float"], file["bool"] = np.linspace(0, 1, 6), np.arange(6) % 2 == 0
    for name, dtype in (("float", np.float64), ("bool", np.bool_)):
        column = HDF5Array(tmp_path / "values.h5", name)
        assert (column.shape, column.dtype) == ((6,), dtype)
        assert column[np.array([5, 0])].dtype == dtype


def test_hdf5_opens_at_the_first_read_and_stays_open(tmp_path):
    column = hdf5(tmp_path, images(1))
    with h5py.File(column.file, "r+") as file:  # Nobody else has it open.
        file["train/images"][0] = 7
    first = column[:1]
    gc.collect()
    assert (first == 7).all()
    assert column._dataset is column._dataset


def test_hdf5_is_read_by_several_threads(tmp_path):
    column, values = hdf5(tmp_path, images(3)), images(3)
    rows = [np.random.default_rng(seed).permutation(SIZE) for seed in range(20)]
    with ThreadPoolExecutor(4) as pool:
        for chosen, read in zip(rows, pool.map(column.__getitem__, rows), strict=True):
            np.testing.assert_array_equal(read, values[chosen])


def test_hdf5_is_read_by_other_processes(tmp_path):
    """By one that unpickles a column in use, and by one that is forked off while using it."""
    program = """if True:
        import os, pickle, sys

        column = pickle.load(sys.stdin.buffer)
        print(column[:].sum(), flush=True)
        opened = column._dataset
        child = os.fork()
        if child == 0:
            print(column[:].sum(), column._dataset is opened, flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(column[:].sum(), column._dataset is opened)
    """
    column = hdf5(tmp_path, images(3))
    total = column[:].sum()
    command = [sys.executable, "-c", program]
    ended = subprocess.run(
        command, input=pickle.dumps(column), capture_output=True, check=True, timeout=120
    )
    expected = [str(total), f"{total} False", f"{total} True"]
    assert ended.stdout.decode().splitlines() == expected


def test_hdf5_without_the_data_set_is_refused(tmp_path):
    with h5py.File(tmp_path / "values.h5", "w") as file:
        file["train/images"], file["version"] = np.zeros((3, 2)), 1.0
    for name in ("images", "train", "version"):
        with pytest.raises(ValueError, match=rf"'{name}'.*choose from \['train/images'\]"):
            HDF5Array(tmp_path / "values.h5", name)
    with pytest.raises(FileNotFoundError, match=r"missing\.h5"):
        HDF5Array(tmp_path / "missing.h5", "x")


def test_images_with_a_palette_have_colour_and_bits_are_grey(tmp_path):
    rgb = images(3)[0] // 64 * 64
    Image.fromarray(rgb).quantize(256).save(tmp_path / "palette.png")
    Image.fromarray(rgb[..., 0] > 64).save(tmp_path / "bits.png")
    palette, bits = (ImageFiles([tmp_path / name]) for name in ("palette.png", "bits.png"))
    np.testing.assert_array_equal(palette[:][0], rgb)
    np.testing.assert_array_equal(bits[:][0, ..., 0], 255 * (rgb[..., 0] > 64))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((5, 6, 3), np.uint8), r"odd\.png has .* \(5, 6, 3\), expected \(5, 4, 3\)"),
        (np.zeros((5, 4), np.uint8), r"odd\.png has .* \(5, 4, 1\), expected \(5, 4, 3\)"),
        (np.zeros((5, 4, 4), np.uint8), r"odd\.png has Pillow's mode 'RGBA', expected one of"),
        (np.zeros((5, 4), np.uint16), r"odd\.png has Pillow's mode 'I;16'"),
    ],
    ids=["size", "grey", "transparency", "sixteen_bits"],
)
def test_images_that_do_not_fit_are_refused_when_read(tmp_path, pixels, message):
    column = png(tmp_path, images(3))
    Image.fromarray(pixels).save(tmp_path / "odd.png")
    column = ImageFiles([*column.files, tmp_path / "odd.png"])
    dataset = MultimodalArrays({"image": column})
    assert len(take(dataset, np.arange(SIZE)).data["image"]) == SIZE
    with pytest.raises(ValueError, match=message):
        take(dataset, np.array([0, SIZE]))


def test_damaged_images_are_named(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    file = tmp_path / "cut.png"
    Image.fromarray(pixels).save(file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut\.png is damaged \(.*put a whole one there"):
        ImageFiles([file], (40, 40, 3))[:]


def test_the_shape_of_images_can_be_demanded(tmp_path):
    files = png(tmp_path, images(3)).files
    with pytest.raises(ValueError, match=r"00\.png .* \(5, 4, 3\), expected \(28, 28, 1\)"):
        ImageFiles(files, (28, 28, 1))[:1]


@pytest.mark.parametrize("files", [[], "images"], ids=["none", "folder"])
def test_no_list_of_images_is_refused(files):
    with pytest.raises(ValueError, match=r"files is .*: give the path of every image"):
        ImageFiles(files)


@pytest.mark.parametrize(
    ("package", "make", "command"),
    [
        ("h5py", lambda file: HDF5Array(file, "x"), "pip install h5py"),
        ("PIL", lambda file: ImageFiles([file]), "pip install pillow"),
    ],
    ids=["h5py", "pillow"],
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, package, make, command):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=command):
        make(tmp_path / "file")
