"""PolyMNIST from PNG files, and from packed arrays."""

import shutil

import numpy as np
import pytest
from helpers.official_files import write_png

from mmvae_jax.data import (
    ImageFiles,
    missing_at_random,
    missing_by_label,
    num_examples,
    polymnist,
    take,
)
from mmvae_jax.data.datasets.polymnist import LABELS, pack

#: Files of each split, in the order that they should be read in: 10 after 9, index before label.
NAMES = {
    "train": [*(f"{i}.{c}.png" for i in (0, 1, 2, 9, 10) for c in (0, 3, 8)), "11.3.png"],
    "test": ["0.1.png", "0.7.png", "1.7.png"],
}
PLACES = ["polymnist", "PolyMNIST/MMNIST", "PolyMNIST", "MMNIST"]


def write(folder, num_modalities=5) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    images = {}
    for split, names in NAMES.items():
        images[split] = {
            f"m{m}": rng.integers(0, 256, (len(names), 28, 28, 3), np.uint8)
            for m in range(num_modalities)
        }
        for name, pictures in images[split].items():
            # Backwards, because a file system may list files in the order of their creation.
            for file, image in reversed([*zip(names, pictures, strict=True)]):
                write_png(folder / split / name / file, image)
    return images


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "polymnist"
    return folder, write(folder)


@pytest.fixture
def root(tmp_path, written):
    """A copy of the written data set that may be changed."""
    shutil.copytree(written[0], tmp_path / "data/polymnist")
    return tmp_path / "data"


def assert_read(dataset, images, num_modalities=5):
    for split, names in NAMES.items():
        found = getattr(dataset, split)
        assert num_examples(found) == len(names)
        assert list(found.data) == [f"m{m}" for m in range(num_modalities)]
        for name, column in found.data.items():
            np.testing.assert_array_equal(column[:], images[split][name])
        assert found.labels.tolist() == [int(name.split(".")[1]) for name in names]


@pytest.mark.parametrize("place", PLACES)
def test_files_are_read_in_the_order_of_their_numbers(written, tmp_path, place):
    shutil.copytree(written[0], tmp_path / "data" / place)
    dataset = polymnist(tmp_path / "data")
    assert_read(dataset, written[1])
    assert isinstance(dataset.train.data["m0"], ImageFiles)


@pytest.mark.parametrize("num_modalities", [1, 3])
def test_fewer_modalities(root, written, num_modalities):
    assert_read(polymnist(root, num_modalities=num_modalities), written[1], num_modalities)


def test_packed_arrays_hold_what_the_files_hold(root, written):
    pack(root / "polymnist")
    shutil.rmtree(root / "polymnist/train/m4")
    dataset = polymnist(root)
    assert_read(dataset, written[1])
    assert isinstance(dataset.train.data["m0"], np.memmap)
    with pytest.raises(FileExistsError, match=r"labels\.npy exists"):
        pack(root / "polymnist")


def test_parts_can_be_missing(root):
    train = polymnist(root).train
    half = missing_at_random(train, 0.5, seed=0)
    assert np.stack([*half.mask.values()]).any(0).all()
    batch = take(missing_by_label(train, {"m1": [8]}), np.arange(6))
    assert batch.data["m1"].shape == (6, 28, 28, 3)
    np.testing.assert_array_equal(batch.mask["m1"], batch.labels != 8)
    assert batch.mask["m0"].all()


def rename(folder):
    (folder / "train/m3/9.8.png").rename(folder / "train/m3/9.7.png")


def remove_one(folder):
    (folder / "train/m1/11.3.png").unlink()


def remove_last(folder):
    shutil.rmtree(folder / "test/m4")


def add(folder):
    (folder / "test/m2/picture.png").write_bytes(b"")


def empty(folder):
    for file in (folder / "train/m0").iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename, r"train has 2 files in only one of m0/ and m3/"),
        (remove_one, r"train has 1 files in only one of m0/ and m1/"),
        (remove_last, "m4 is not a folder"),
        (add, "m2 has 4 PNG files, 1 of them not named"),
        (empty, "m0 has 0 PNG files"),
    ],
)
def test_modalities_that_do_not_match_are_refused(root, change, message):
    change(root / "polymnist")
    with pytest.raises(ValueError, match=message):
        polymnist(root)


def test_an_unreadable_file_is_named_when_it_is_read(root):
    (root / "polymnist/train/m2/0.3.png").write_bytes(b"no image")
    column = polymnist(root).train.data["m2"]
    column[2:]
    with pytest.raises(OSError, match=r"m2/0\.3\.png"):
        column[:2]


def test_an_image_of_another_size_is_named_when_it_is_read(root):
    write_png(root / "polymnist/train/m2/0.3.png", np.zeros((28, 29, 3), np.uint8))
    with pytest.raises(ValueError, match=r"m2/0\.3\.png has .* \(28, 29, 3\)"):
        pack(root / "polymnist")
    assert not (root / "polymnist/train" / LABELS).exists()


def drop(folder):
    (folder / "m3.npy").unlink()


def shorten(folder):
    np.save(folder / "m3.npy", np.load(folder / "m3.npy")[:-1])


def scale(folder):
    np.save(folder / "m3.npy", np.load(folder / "m3.npy") / 255)


def transpose(folder):
    np.save(folder / "m3.npy", np.load(folder / "m3.npy").transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"has labels\.npy but lacks \['m3\.npy'\]"),
        (shorten, "has 15 rows"),
        (scale, r"m3\.npy is float64"),
        (transpose, r"m3\.npy is uint8\[16, 3, 28, 28\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(root, change, message):
    pack(root / "polymnist")
    change(root / "polymnist/train")
    with pytest.raises(ValueError, match=message):
        polymnist(root)


def test_a_missing_data_set_says_where_it_is_from(tmp_path):
    with pytest.raises(FileNotFoundError, match="lacks PolyMNIST"):
        polymnist(tmp_path)
    with pytest.raises(ValueError, match="num_modalities is 0"):
        polymnist(tmp_path, num_modalities=0)
