"""Small data sets in the formats of the published ones."""

import gzip
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from mmvae_jax.data import mnist
from mmvae_jax.data.datasets.files import ENVIRONMENT

TRAIN_LABELS = np.repeat(np.arange(10), np.arange(3, 13))[np.random.default_rng(0).permutation(75)]
TEST_LABELS = np.arange(20) % 10
CUB_CAPTIONS = {"train": "text_trainvalclasses.txt", "test": "text_testclasses.txt"}


def idx(values: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return b"\0\0\x08" + bytes([values.ndim]) + sizes + values.astype(np.uint8).tobytes()


def write_mnist(folder: Path, *, zipped: bool = True, seed: int = 0) -> dict[str, np.ndarray]:
    """Writes random images with the labels above; returns the images of each split."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    images = {}
    for split, prefix, labels in (("train", "train", TRAIN_LABELS), ("test", "t10k", TEST_LABELS)):
        images[split] = rng.integers(0, 256, (len(labels), 28, 28), np.uint8)
        files = {
            f"{prefix}-images-idx3-ubyte": images[split],
            f"{prefix}-labels-idx1-ubyte": labels,
        }
        for name, values in files.items():
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(values), 1))
            else:
                (folder / name).write_bytes(idx(values))
    return images


def svhn_labels(size: int) -> np.ndarray:
    return (7 * np.arange(size) + 3) % 10


def write_svhn(folder: Path, num_train: int = 60, num_test: int = 30) -> dict[str, np.ndarray]:
    """Writes random images, whose labels are ``svhn_labels``; returns the images of each split."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    images = {}
    for split, size in (("train", num_train), ("test", num_test)):
        images[split] = rng.integers(0, 256, (size, 32, 32, 3), np.uint8)
        labels = svhn_labels(size)
        content = {
            "X": images[split].transpose(1, 2, 3, 0),
            "y": np.where(labels == 0, 10, labels).astype(np.uint8)[:, None],
        }
        savemat(folder / f"{split}_32x32.mat", content, do_compression=True)
    return images


def write_png(file: Path, image: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)


def write_cub(
    root: Path,
    images: Mapping[str, Mapping[str, Image.Image]],
    captions: Mapping[str, Sequence[str]],
) -> None:
    """Writes images, by split and path such as `002.Laysan_Albatross/a.jpg`, and their captions."""
    for split, named in images.items():
        for name, image in reversed([*named.items()]):
            file = root / split / name
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file)
        (root / CUB_CAPTIONS[split]).write_text("\n".join(captions[split]) + "\n")


def write_polymnist(folder: Path) -> None:
    """Writes random images of two modalities, packed."""
    rng = np.random.default_rng(0)
    for split, size in (("train", 40), ("test", 20)):
        (folder / split).mkdir(parents=True)
        for m in range(2):
            images = rng.integers(0, 256, (size, 28, 28, 3), np.uint8)
            np.save(folder / split / f"m{m}.npy", images)
        np.save(folder / split / "labels.npy", np.arange(size) % 10)


def write_birds(folder: Path) -> None:
    """Writes random images as CUB, as many species as images, and captions of random words."""
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(20)]
    images, captions = {}, {}
    for split, first, num in (("train", 1, 48), ("test", 101, 4)):
        images[split] = {
            f"{first + i:03}.Bird/bird_{first + i}.jpg": Image.fromarray(
                rng.integers(0, 256, (64, 64, 3), np.uint8)
            )
            for i in range(num)
        }
        captions[split] = [
            " ".join([*rng.choice(words, rng.integers(3, 9)), *[f"rare{i}"] * (i % 3 == 0)])
            for i in range(10 * num)
        ]
    write_cub(folder, images, captions)


def real_mnist() -> Path:
    """Returns the folder of the published MNIST, or skips the test."""
    named = os.environ.get(ENVIRONMENT)
    if not named:
        pytest.skip(f"{ENVIRONMENT} names no folder with the published files of MNIST")
    try:
        mnist(named)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return Path(named)
