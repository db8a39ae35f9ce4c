"""The images that all contenders see: random ones, or MNIST's digits.

NumPy alone: MultiVae's process imports it as well.
"""

import gzip
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from experiments.benchmark.cases import Case

Images = dict[str, np.ndarray]

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
#: Colours of the modalities' digits where a case has three channels, in turns.
TINTS = ((1.0, 0.45, 0.3), (0.35, 0.8, 1.0), (0.6, 1.0, 0.4), (1.0, 0.85, 0.3), (0.8, 0.5, 1.0))


def batches(case: Case, size: int, seed: int, data_dir: Path | None) -> Iterator[Images]:
    """Endless batches ``{modality: [size, height, width, channel]}``, float32 from 0 to 1."""
    rng = np.random.default_rng(seed)
    dims = {name: modality.dim for name, modality in case.modalities.items()}
    if data_dir is None:
        while True:
            yield {name: rng.random((size, *dim), np.float32) for name, dim in dims.items()}
    images, labels = (read_idx(file) for file in digit_files(data_dir))
    by_class = [np.flatnonzero(labels == digit) for digit in range(10)]
    while True:
        classes = labels[rng.integers(len(labels), size=size)]
        yield {
            name: draw_digits(images[_one_of_each(by_class, classes, rng)], dim, tint)
            for (name, dim), tint in zip(dims.items(), itertools.cycle(TINTS), strict=False)
        }


def draw_digits(
    images: np.ndarray, dim: tuple[int, ...], tint: tuple[float, float, float]
) -> np.ndarray:
    """Bytes ``[n, 28, 28]`` as intensities of shape ``dim``, with a margin and a tint."""
    margin = (dim[0] - images.shape[1]) // 2
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))[..., None] / 255
    return (padded * (tint if dim[-1] == 3 else 1)).astype(np.float32)


def digit_files(folder: Path) -> tuple[Path, ...]:
    """MNIST's images and labels in the folder, zipped or not.

    Raises:
      ValueError: if one of them is not there.
    """
    found = []
    for name in IDX_FILES:
        file = next((f for f in (folder / name, folder / f"{name}.gz") if f.is_file()), None)
        if file is None:
            raise ValueError(
                f"data_dir is {folder}: it lacks {name}, expected are {' and '.join(IDX_FILES)} "
                "with or without .gz"
            )
        found.append(file)
    return tuple(found)


def read_idx(file: Path) -> np.ndarray:
    """The bytes of an idx file: a magic number, its shape in big-endian integers, the content."""
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    num_axes = content[3]
    shape = tuple(np.frombuffer(content, ">u4", num_axes, offset=4).tolist())
    return np.frombuffer(content, np.uint8, math.prod(shape), 4 + 4 * num_axes).reshape(shape)


def _one_of_each(
    by_class: list[np.ndarray], classes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    return np.array([rng.choice(by_class[digit]) for digit in classes])
