"""The command line in tests: a real table of several views, arrays of every kind, shorthands."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer

import mmvae_jax as mm
from mmvae_jax.cli import main
from mmvae_jax.estimator.settings import TrainingSettings
from mmvae_jax.estimator.training import TrainingData, split_for_training
from mmvae_jax.tables.reading import read_tables
from mmvae_jax.tables.views import View

VIEWS = ("mean", "error", "worst")
SIZE = 10  # features of a view
#: Rows of the training file and of the held-out file.
NUM_TRAIN, NUM_TEST = 400, 169


def mmvae(*args: object) -> int:
    """Runs a command in this process; a string may hold several arguments."""
    return main([word for arg in args for word in str(arg).split()])


def arrays_in(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as archive:
        return dict(archive)


def split(path: Path, validation: float = 0.0, seed: int = 0, **likelihoods: str) -> TrainingData:
    settings = TrainingSettings(likelihood=likelihoods, validation=validation, seed=seed)
    return split_for_training(read_tables(path), settings)


def config_of(views: dict[str, View]) -> mm.MMVAEConfig:
    return mm.MMVAEConfig(
        input_dims={name: view.dim for name, view in views.items()},
        decoders_dist={name: view.likelihood for name, view in views.items()},
    )


def write_tumours(folder: Path) -> tuple[Path, Path]:
    """Writes scikit-learn's breast tumours: training rows with gaps, and complete held-out rows.

    Three views are ten features of a tumour's cell nuclei (mean, standard error and largest
    values), the fourth is the diagnosis. A fifth of each view's training rows is NaN.
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
    """Returns one array of every kind that a likelihood is chosen for, named after the kind."""
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
