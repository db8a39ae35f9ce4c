"""The folder of a run, from which its model is read again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx

from mmvae_jax.config import MMVAEConfig
from mmvae_jax.estimator.networks import NetworkSettings
from mmvae_jax.estimator.table_model import TableModel
from mmvae_jax.saving.files import read_json, write_text
from mmvae_jax.tables.mixed_view import AnyView, view_from_json
from mmvae_jax.training.checkpoint import Checkpoints
from mmvae_jax.training.loading import load
from mmvae_jax.training.run_settings import SETTINGS_FILE, read_settings

CHECKPOINTS, HISTORY_FILE, SUMMARY_FILE = "checkpoints", "history.jsonl", "summary.json"


class TrainedRun(NamedTuple):
    """A run of ``mmvae train``, or of ``MMVAEEstimator.fit`` with a folder.

    Attributes:
      saved: checkpoints, with the settings of the run.
      config: settings of the model.
      views: conversion of each modality to the model's input.
      networks: settings of the networks.
    """

    saved: Checkpoints
    config: MMVAEConfig
    views: dict[str, AnyView]
    networks: NetworkSettings

    def load(self, step: int | None = None) -> tuple[TableModel, int]:
        """Returns the model at a step, and the step; errors are those of ``mmvae_jax.load``.

        The default is the step of the best evaluation, or the newest of a run without any.
        """
        if step is None:
            newest = self.saved.intact_step()
            best: int | None = self.saved.extra(newest)["judge"]["best_step"]
            step = newest if best is None else best
        encoders, decoders = self.networks.build(self.views, self.config.latent_dim, nnx.Rngs(0))
        folder = self.saved.directory
        model, _ = load(folder, step=step, encoders=encoders, decoders=decoders)
        return TableModel(model, self.views, self.networks), step


def run_settings(views: Mapping[str, AnyView], networks: NetworkSettings) -> dict[str, Any]:
    """Returns views and networks in the form in which JSON holds them."""
    plain = {name: view.to_json() for name, view in views.items()}
    return {"views": plain, "networks": networks._asdict()}


def read_run_settings(content: Mapping[str, Any]) -> tuple[dict[str, AnyView], NetworkSettings]:
    """Returns the views and networks of ``run_settings``.

    Raises:
      AttributeError, KeyError, TypeError: if the content is not that of ``run_settings``.
    """
    views, networks = content["views"], content["networks"]
    return (
        {name: view_from_json(view) for name, view in views.items()},
        NetworkSettings(networks["kind"], tuple(networks["hidden"])),
    )


def open_run(folder: Path) -> TrainedRun:
    """Reads the settings of a run, but none of its arrays.

    Raises:
      FileNotFoundError: if there is no run.
      ValueError: if it is a run of ``mmvae_jax.fit`` on other data than tables, or its settings
        cannot be read.
    """
    folder = _best_seed(folder)
    checkpoints = folder / CHECKPOINTS
    if not checkpoints.is_dir():
        raise FileNotFoundError(
            f"RUN is {folder}: it has no folder {CHECKPOINTS!r}, give the --out of mmvae train"
        )
    settings = read_settings(checkpoints)
    try:
        config = MMVAEConfig.from_dict(settings["model"])
        views, networks = read_run_settings(settings["run"])
        return TrainedRun(Checkpoints(checkpoints, config=settings), config, views, networks)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{checkpoints / SETTINGS_FILE} was not written by mmvae train ({error!r}): give its "
            "--out, or open other checkpoints with mmvae_jax.load"
        ) from error


def has_run(folder: Path) -> bool:
    """Returns True for the folder of one run that has begun."""
    return (folder / CHECKPOINTS).is_dir()


def seed_folder(folder: Path, seed: int) -> Path:
    """Returns the folder of one seed's run, in a folder of several."""
    return folder / f"seed-{seed}"


def write_seeds(folder: Path, bounds: Mapping[int, float | None]) -> None:
    """Writes the validation bound of each seed's run, and the seed of the largest one."""
    known = {seed: value for seed, value in bounds.items() if value is not None}
    best = max(known, key=lambda seed: known[seed]) if known else next(iter(bounds))
    content = {"best_seed": best, "validation_bound": {str(s): x for s, x in bounds.items()}}
    write_text(folder / SUMMARY_FILE, json.dumps(content, indent=2) + "\n")


def is_run(folder: Path) -> bool:
    """Returns True for the folder of a run, or of the runs of several seeds."""
    return has_run(_best_seed(folder))


def _best_seed(folder: Path) -> Path:
    """Returns the folder of the best seed in a folder of several runs, else the folder itself."""
    file = folder / SUMMARY_FILE
    if has_run(folder) or not file.is_file():
        return folder
    best = read_json(file, source="the --out of mmvae train").get("best_seed")
    return folder if best is None else seed_folder(folder, best)


def check_out(folder: Path, *, resume: bool, has_seeds: bool = False) -> None:
    """Raises ValueError if a folder holds anything or, to resume, no run of this kind.

    Args:
      folder: folder to write.
      resume: True to continue what it holds.
      has_seeds: True for a folder of several runs, one per seed.
    """
    holds_run, holds_seeds = has_run(folder), any(folder.glob("seed-*"))
    is_of_kind = holds_seeds and not holds_run if has_seeds else holds_run
    if resume and not is_of_kind:
        kind = "runs of --seeds" if has_seeds else "run"
        hint = ", give --seeds" if holds_seeds and not has_seeds else ", leave resume out"
        raise ValueError(f"out is {folder}: it holds no {kind} to resume{hint}")
    if not resume and folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise ValueError(
            f"out is {folder}: it exists, and nothing is overwritten; resume the run in it, or "
            "give another folder"
        )
