"""Finished runs of the experiments: their settings and trained models, from their folders."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from flax import nnx

import mmvae_jax as mm
from experiments import runs
from experiments.cub import CUBConfig
from experiments.digits import DigitsConfig
from experiments.experiment import Experiment
from experiments.mnist_pairs import MNISTPairsConfig
from experiments.mnist_scenes import MNISTScenesConfig
from experiments.mnist_svhn import MNISTSVHNConfig
from experiments.mnist_svhn_text import MNISTSVHNTextConfig
from experiments.polymnist import PolyMNISTConfig
from mmvae_jax.checks import check_choice

CLASSES: dict[str, type[Experiment]] = {
    experiment.name: experiment
    for experiment in (
        CUBConfig,
        DigitsConfig,
        MNISTPairsConfig,
        MNISTScenesConfig,
        MNISTSVHNConfig,
        MNISTSVHNTextConfig,
        PolyMNISTConfig,
    )
}


def experiment_of(folder: Path, data_dir: Path | None = None) -> Experiment:
    """Returns the settings of a finished run.

    Args:
      folder: folder of the run, with its ``metrics.json``.
      data_dir: folder of the data sets; None is $MMVAE_DATA, or a download where one is offered.

    Raises:
      ValueError: if the folder is not that of a finished run.
    """
    file = folder / runs.METRICS_FILE
    if not file.is_file():
        raise ValueError(f"run is {folder}, which has no {file.name}: give a finished run's folder")
    found = json.loads(file.read_text())
    name = found["experiment"]
    check_choice(f"experiment in {file}", name, tuple(CLASSES))
    fields = {field.name for field in dataclasses.fields(CLASSES[name])}
    settings: dict[str, Any] = {
        field: tuple(value) if isinstance(value, list) else value
        for field, value in found["config"].items()
        if field in fields
    }
    return CLASSES[name](**settings, data_dir=data_dir)


def load_model(folder: Path, experiment: Experiment) -> mm.MMVAE:
    """Returns the trained model of a run, from its newest checkpoint.

    Raises:
      FileNotFoundError: if the run has no checkpoint.
      ValueError: if files are damaged, or if the networks are not those of the run.
    """
    encoders, decoders = experiment.make_networks(nnx.Rngs(0))
    model, _ = mm.load(folder / runs.CHECKPOINTS, encoders=encoders, decoders=decoders)
    return model
