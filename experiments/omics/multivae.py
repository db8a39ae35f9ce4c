"""MultiVae's MMVAE as a method of the study, trained in a process of its own Python."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import mmvae_jax as mm
from experiments.omics.baselines import Predicted, measure, measure_classes
from experiments.omics.data import Split
from experiments.omics.models import classes_of_latents
from mmvae_jax.data.arrays import num_examples
from mmvae_jax.estimator.settings import COLUMN_SCALE, TrainingSettings
from mmvae_jax.estimator.training import EVAL_EVERY, split_for_training
from mmvae_jax.tables.examples import check_examples
from mmvae_jax.tables.views import View

#: Fields of ``TrainingSettings`` by name of the method. Its scales are fixed, as MultiVae's are.
MULTIVAE: dict[str, dict[str, Any]] = {
    "multivae": {"loss": "iwae_looser", "learn_scale": False},
    "multivae dreg": {"loss": "dreg_looser", "learn_scale": False},
}
#: Uses of MultiVae's model, as in ``USES``.
MULTIVAE_USES = ("mixture", "latents")
#: Settings that MultiVae shares with ours.
SHARED = (
    *("latent_dim", "hidden", "K", "loss", "posterior", "learn_prior"),
    *("num_steps", "batch_size", "learning_rate", "patience", "seed"),
)


def run_multivae(
    rows: Split, params: Mapping[str, Any], python: Path | None
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Trains MultiVae's MMVAE on the inputs that ``MMVAEEstimator`` makes, and measures two uses.

    Args:
      rows: training and test rows.
      params: fields of ``TrainingSettings``.
      python: executable of a Python with torch and multivae; None is the running one.

    Returns:
      Scores by use, as in ``run_variant``, and the course of training.

    Raises:
      RuntimeError: if the process fails, with its message.
    """
    settings = TrainingSettings(**params)
    train = mm.read_tables({**rows.train.views, rows.train.label: rows.train.classes})
    data = split_for_training(train, settings)
    # No view of the study has columns of several kinds, which MultiVae cannot take.
    views = {name: view for name, view in data.views.items() if isinstance(view, View)}
    parts = {"train": data.train, "validation": data.validation}
    for part, tables in (("all", rows.train), ("test", rows.test)):
        parts[part] = check_examples(mm.read_tables(tables.views), views)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for part, examples in parts.items():
            write_arrays(folder, part, examples, views)
        written = json.dumps(settings_of(settings, views, list(rows.train.views)))
        (folder / "settings.json").write_text(written)
        train_in_process(folder, python)
        values, latents = (dict(np.load(folder / f"{x}.npz")) for x in ("predicted", "latents"))
        course = json.loads((folder / "course.json").read_text())
    found = {name: views[name].to_rows(x) for name, x in values.items()}
    predicted = Predicted(found.pop(rows.test.label), found)
    classes = classes_of_latents(latents["all"], rows.train.classes, latents["test"])
    measured = (measure(predicted, rows), measure_classes(classes, rows))
    return dict(zip(MULTIVAE_USES, measured, strict=True)), course


def settings_of(
    settings: TrainingSettings, views: Mapping[str, View], given: list[str]
) -> dict[str, Any]:
    """Returns the settings of a run of ``train_multivae``, with the modalities to predict from."""
    return {
        "dims": {name: int(np.prod(view.dim)) for name, view in views.items()},
        "likelihoods": {name: view.likelihood for name, view in views.items()},
        "views": given,
        "scale": COLUMN_SCALE,
        "eval_every": EVAL_EVERY,
        **{name: getattr(settings, name) for name in SHARED},
    }


def write_arrays(
    folder: Path, part: str, examples: mm.MultimodalArrays, views: Mapping[str, View]
) -> None:
    """Writes the inputs and masks of a part of the rows; classes become one-hot vectors."""
    every = np.arange(num_examples(examples))
    data = {}
    for name, view in views.items():
        x = np.asarray(examples.data[name][every])
        one_hot = np.eye(view.num_classes, dtype=np.float32)[x] if view.num_classes else x
        data[name] = one_hot.astype(np.float32).reshape(len(every), -1)
    np.savez(folder / f"{part} data.npz", **data)
    np.savez(folder / f"{part} masks.npz", **(examples.mask or {}))


def train_in_process(folder: Path, python: Path | None) -> None:
    """Runs ``train_multivae`` on a folder, with the repository on its path."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [str(python or sys.executable), "-m", "experiments.omics.train_multivae", str(folder)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"MultiVae failed (rc {done.returncode}): {done.stderr[-2000:]}")
