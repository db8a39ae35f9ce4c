"""MNIST and Fashion-MNIST from small idx files, and from the published ones."""

import gzip
import hashlib

import chex
import numpy as np
import pytest
from helpers.official_files import TEST_LABELS, TRAIN_LABELS, idx, real_mnist, write_mnist

from mmvae_jax.data import fashion_mnist, missing_at_random, missing_by_label, mnist, num_examples
from mmvae_jax.data.datasets.mnist import read_idx

VALUES = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["mnist", "MNIST/raw", "."])
def test_images_and_labels_are_those_of_the_files(tmp_path, place, zipped):
    root = tmp_path / "data"
    images = write_mnist(root / place, zipped=zipped)
    dataset = mnist(root)
    for split, labels in (("train", TRAIN_LABELS), ("test", TEST_LABELS)):
        found = getattr(dataset, split)
        chex.assert_trees_all_equal(found.data["image"], images[split][..., None])
        chex.assert_type(found.data["image"], np.uint8)
        np.testing.assert_array_equal(found.labels, labels)


@pytest.mark.parametrize("place", ["mnist", "MNIST/raw", "."])
def test_fashion_is_never_read_from_the_files_of_mnist(tmp_path, place):
    root = tmp_path / "data"
    write_mnist(root / place)
    with pytest.raises(FileNotFoundError, match="lacks fashion_mnist/train-images"):
        fashion_mnist(root)
    images = write_mnist(root / "fashion_mnist", seed=1)
    dataset = fashion_mnist(root)
    chex.assert_trees_all_equal(dataset.test.data["image"], images["test"][..., None])


CONTENT = idx(VALUES)
DAMAGED = {
    "begins with 89 50 4e 47": b"\x89PNG\r\n",
    "begins with 00 00 0d 01": b"\0\0\x0d\x01\0\0\0\x01" + bytes(4),  # floats
    "begins with 00 00 08 03": CONTENT[:9],
    "begins with nothing": b"",
    "holds 23 bytes": CONTENT[:-1],
    "holds 25 bytes": CONTENT + b"\0",
    "is a damaged gzip": gzip.compress(CONTENT)[:-9],
}


@pytest.mark.parametrize(("message", "content"), DAMAGED.items(), ids=DAMAGED)
def test_damaged_files_are_refused_by_name(tmp_path, message, content):
    (tmp_path / "values").write_bytes(content)
    with pytest.raises(ValueError, match=f"values.* {message}"):
        read_idx(tmp_path / "values")


def test_a_flipped_byte_of_a_gzip_file_is_found(tmp_path):
    content = bytearray(gzip.compress(CONTENT))
    content[-6] ^= 1  # of its checksum
    (tmp_path / "values.gz").write_bytes(content)
    with pytest.raises(ValueError, match="is a damaged gzip"):
        read_idx(tmp_path / "values.gz")


def test_files_in_each_others_place_are_refused(tmp_path):
    write_mnist(tmp_path / "mnist", zipped=False)
    labels = tmp_path / "mnist/train-labels-idx1-ubyte"
    right = labels.read_bytes()
    labels.write_bytes((tmp_path / "mnist/train-images-idx3-ubyte").read_bytes())
    with pytest.raises(ValueError, match=r"train-labels.* has 3 axes"):
        mnist(tmp_path)
    labels.write_bytes((tmp_path / "mnist/t10k-labels-idx1-ubyte").read_bytes())
    with pytest.raises(ValueError, match="labels has"):
        mnist(tmp_path)
    labels.write_bytes(right)
    mnist(tmp_path)


def test_the_published_files():
    dataset = mnist(real_mnist())
    assert np.bincount(dataset.train.labels).tolist() == [
        *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    ]
    assert num_examples(dataset.test) == 10_000
    # Published sums of the unpacked files.
    for split, md5 in zip(
        dataset,
        ("6bbc9ace898e44ae57da46a324031adb", "2646ac647ad5339dbf082846283269ea"),
        strict=True,
    ):
        images = split.data["image"]
        content = idx(images[..., 0])
        assert hashlib.md5(content).hexdigest() == md5
        hidden = missing_by_label(missing_at_random(split, 0.5, seed=0), {"image": []})
        assert hidden.mask["image"].all()  # The only modality stays.
