"""Breast tumours as a table of several views: what scikit-learn ships of a real study."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer

VIEWS = ("mean", "error", "worst")
SIZE = 10  # features of a view
#: Rows of the file to train on; the rest is for the file of held-out ones.
NUM_TRAIN, NUM_TEST = 400, 169


def write_tumours(folder: Path) -> tuple[Path, Path]:
    """Training rows, a fifth of each view of which is NaN, and complete others.

    The same ten features of a tumour's cell nuclei (their mean, standard error and largest values)
    are three views, and its diagnosis a fourth.
    """
    x, diagnosis = load_breast_cancer(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))
    views = {name: x[order, SIZE * i : SIZE * (i + 1)] for i, name in enumerate(VIEWS)}
    files = folder / "train.npz", folder / "test.npz"
    for file, rows in zip(files, (slice(NUM_TRAIN), slice(NUM_TRAIN, None)), strict=True):
        arrays = {name: view[rows].copy() for name, view in views.items()}
        arrays["diagnosis"] = diagnosis[order][rows]
        if file.stem == "train":
            for view in VIEWS:
                arrays[view][rng.random(NUM_TRAIN) < 0.2] = np.nan
            arrays["labels"] = arrays["diagnosis"]
        np.savez(file, **arrays)
    return files


def every_kind(num_rows: int = 12) -> dict[str, np.ndarray]:
    """One array of every kind that a likelihood is chosen for, named after what it is."""
    rng = np.random.default_rng(1)
    uniform = rng.random((num_rows, 6, 6, 3))
    return {
        "table": 100 + 5 * rng.standard_normal((num_rows, 4)),
        "column": rng.standard_normal(num_rows).astype(np.float32),
        "picture": (256 * uniform).astype(np.uint8),
        "grey": (256 * uniform[..., 0]).astype(np.uint8),
        "floats": uniform.astype(np.float32),
        "bits": uniform[:, 0, :, 0] > 0.5,
        "binary": (uniform[:, 1, :, 0] > 0.5).astype(np.int64),
        "class": np.arange(num_rows) % 3,
        "words": rng.integers(7, size=(num_rows, 5)).astype(np.uint16),
    }
