"""PolyMNIST, from the published folders of PNG files or from one packed array per modality.

Five images of one digit, in different handwriting on different photographs (Sutter, Daunhawer and
Vogt, 2021, "Generalized multimodal ELBO"). ``python -m experiments.make_polymnist`` makes such a
data set from MNIST and photographs.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_at_least
from mmvae_jax.data.arrays import num_examples
from mmvae_jax.data.columns import Column
from mmvae_jax.data.datasets.files import Folder, Splits, locate_folder
from mmvae_jax.data.image_files import ImageFiles

NUM_MODALITIES = 5
SPLITS = ("train", "test")
IMAGE_SHAPE = (28, 28, 3)
LABELS = "labels.npy"

_PLACES = ("polymnist", "PolyMNIST/MMNIST", "PolyMNIST", "MMNIST")
_SOURCE = (
    "unzip PolyMNIST.zip of https://zenodo.org/record/4899160, or make one with "
    "python -m experiments.make_polymnist"
)
_FILE_NAME = re.compile(r"(\d+)\.(\d+)\.png")


def polymnist(data_dir: Folder | None = None, *, num_modalities: int = NUM_MODALITIES) -> Splits:
    """Returns PolyMNIST (Sutter et al., 2021): 60,000 and 10,000 examples.

    An example consists of files of one name in all modalities, ``<index>.<label>.png``, where index
    counts within a class. Examples are ordered by index and then by label, so that all classes are
    among the first ones. The published loader uses the order in which the file system lists each
    folder, which need not pair files of one label.

    A split with ``labels.npy`` is read from ``m0.npy``, ``m1.npy``, ..., mapped into memory. Other
    splits are read from the files of ``m0/``, ``m1/``, ..., decoded on demand. ``pack`` writes the
    arrays from the files.

    Args:
      data_dir: folder with ``polymnist/train/m0/0.0.png`` and so on; ``PolyMNIST/MMNIST``,
        ``PolyMNIST`` and ``MMNIST`` are searched, too. If None, the folder that the environment
        variable ``MMVAE_DATA`` names. Nothing is downloaded, because no checksum is published.
      num_modalities: number of modalities to read.

    Returns:
      Modalities ``m0``, ``m1``, ..., bytes ``[n, 28, 28, 3]``; labels 0 to 9.

    Raises:
      FileNotFoundError: if the folder is missing.
      ValueError: if the folder lacks a modality, or modalities do not have the same files.
      ImportError: if there are PNG files, and Pillow is missing.

    >>> from mmvae_jax.data import polymnist
    >>> train, test = polymnist("datasets")  # doctest: +SKIP
    """
    num_modalities = check_at_least("num_modalities", num_modalities, 1)
    root = locate_folder("PolyMNIST", _PLACES, data_dir=data_dir, source=_SOURCE)
    names = [f"m{m}" for m in range(num_modalities)]
    train, test = (read_split(root / split, names) for split in SPLITS)
    return Splits(train, test)


def pack(folder: Path) -> None:
    """Writes ``m0.npy``, ``m1.npy``, ... and ``labels.npy`` beside the PNG files of both splits.

    One modality at a time is in memory.

    Args:
      folder: folder with ``train/m0/`` and so on; all modalities are packed.

    Raises:
      FileExistsError: if a split is packed already.
      ValueError: if modalities do not have the same files, or an image has another size.
    """
    for split in (folder / name for name in SPLITS):
        if (split / LABELS).exists():
            raise FileExistsError(f"{split / LABELS} exists: remove it to pack {split} again")
        names = sorted(found.name for found in split.glob("m*") if found.is_dir())
        dataset = _read_png(split, names)
        for name, column in dataset.data.items():
            np.save(split / f"{name}.npy", column[:])
        # Last, because its presence marks the arrays as complete.
        np.save(split / LABELS, np.asarray(dataset.labels))


def read_split(folder: Path, names: Sequence[str]) -> MultimodalArrays:
    """Returns the named modalities of the split in a folder, packed or in PNG files.

    Raises:
      ValueError: if the split lacks a modality, or modalities do not have the same examples.
    """
    read = _read_packed if (folder / LABELS).is_file() else _read_png
    return read(folder, names)


def _read_packed(folder: Path, names: Sequence[str]) -> MultimodalArrays:
    files = {name: folder / f"{name}.npy" for name in names}
    missing = [file.name for file in files.values() if not file.is_file()]
    if missing:
        raise ValueError(f"{folder} has {LABELS} but lacks {missing}: choose fewer modalities")
    data: dict[str, Column] = {}
    for name, file in files.items():
        data[name] = np.load(file, mmap_mode="r")
        if data[name].dtype != np.uint8 or data[name].shape[1:] != IMAGE_SHAPE:
            raise ValueError(
                f"{file} is {data[name].dtype}{list(data[name].shape)}: pack the PNG files again, "
                f"as bytes of shape {['n', *IMAGE_SHAPE]}"
            )
    dataset = MultimodalArrays(data, np.load(folder / LABELS))
    num_examples(dataset)  # Refuses arrays of different lengths.
    return dataset


def _read_png(folder: Path, names: Sequence[str]) -> MultimodalArrays:
    found = {name: _numbers(folder / name) for name in names}
    if not found:
        raise ValueError(f"{folder} has neither m0/ nor {LABELS}: give the folder of one split")
    first, numbers = next(iter(found.items()))
    for name, others in found.items():
        if not np.array_equal(others, numbers):
            differing = set(map(tuple, numbers.tolist())) ^ set(map(tuple, others.tolist()))
            example = "{}.{}.png".format(*min(differing))
            raise ValueError(
                f"{folder} has {len(differing)} files in only one of {first}/ and {name}/, such as "
                f"{example}: give files of the same names to all modalities"
            )
    files = [f"{index}.{label}.png" for index, label in numbers]
    data = {
        name: ImageFiles([folder / name / file for file in files], IMAGE_SHAPE) for name in names
    }
    return MultimodalArrays(data, np.ascontiguousarray(numbers[:, 1]))


def _numbers(folder: Path) -> Int[np.ndarray, "n 2"]:
    """Returns index and label of all PNG files in a folder, sorted by index and then label."""
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is not a folder: choose fewer modalities, or complete the data set "
            f"({_SOURCE})"
        )
    files = [name for name in os.listdir(folder) if name.endswith(".png")]
    matches = [_FILE_NAME.fullmatch(name) for name in files]
    strange = [name for name, match in zip(files, matches, strict=True) if match is None]
    if strange or not files:
        raise ValueError(
            f"{folder} has {len(files)} PNG files, {len(strange)} of them not named "
            f"<index>.<label>.png {strange[:3]}: give the files of the published data set"
        )
    return np.array(sorted(tuple(map(int, m.groups())) for m in matches if m), np.int32)
