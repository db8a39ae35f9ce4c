"""The folder of a run: all that other commands need of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx

import mmvae_jax as mm
from mmvae_jax.cli.networks import Networks
from mmvae_jax.cli.views import View
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.training.checkpoint import Checkpoints
from mmvae_jax.training.run_settings import SETTINGS_FILE, read_settings

CHECKPOINTS, HISTORY_FILE, SUMMARY_FILE = "checkpoints", "history.jsonl", "summary.json"


class Run(NamedTuple):
    """A run of ``mmvae train``.

    Attributes:
      saved: its checkpoints, whose config.json says the rest.
      config: settings of the model.
      views: how data become its input.
      networks: what its networks are.
    """

    saved: Checkpoints
    config: MMVAEConfig
    views: dict[str, View]
    networks: Networks

    def model(self, step: int | None) -> tuple[mm.MMVAE, int]:
        """The model at a step, and its number; errors are those of ``mmvae_jax.load``.

        By default it is the step of the best evaluation, or the newest of a run without any.
        """
        if step is None:
            newest = self.saved.intact_step()
            best: int | None = self.saved.extra(newest)["judge"]["best_step"]
            step = newest if best is None else best
        encoders, decoders = self.networks.build(self.views, self.config.latent_dim, nnx.Rngs(0))
        folder = self.saved.directory
        model, _ = mm.load(folder, step=step, encoders=encoders, decoders=decoders)
        return model, step


def told(views: Mapping[str, View], networks: Networks) -> dict[str, Any]:
    """What of a run ``mmvae_jax.fit`` is to save, for ``open_run`` to read."""
    plain = {name: view.to_json() for name, view in views.items()}
    return {"views": plain, "networks": networks._asdict()}


def open_run(folder: Path) -> Run:
    """Read what a run is; nothing of its arrays.

    Raises:
      FileNotFoundError: if there is no run.
      ValueError: if it is none of ``mmvae train``, or its settings cannot be read.
    """
    checkpoints = folder / CHECKPOINTS
    if not checkpoints.is_dir():
        raise FileNotFoundError(
            f"{folder} holds no folder {CHECKPOINTS!r}: give the --out of mmvae train"
        )
    found = read_settings(checkpoints)
    try:
        views = {name: View.from_json(view) for name, view in found["run"]["views"].items()}
        networks = found["run"]["networks"]
        return Run(
            Checkpoints(checkpoints, config=found),
            MMVAEConfig.from_dict(found["model"]),
            views,
            Networks(networks["kind"], tuple(networks["hidden"])),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{checkpoints / SETTINGS_FILE} is none of mmvae train ({error!r}): give its --out, or "
            "open other checkpoints with mmvae_jax.load"
        ) from error


def check_new(folder: Path, *, resume: bool) -> None:
    """Raise ValueError if there is something in a folder, or, to resume, no run."""
    if resume and not (folder / CHECKPOINTS).is_dir():
        raise ValueError(f"--out is {folder}, which holds no run to go on with: omit --resume")
    if not resume and folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise ValueError(
            f"--out is {folder}, which exists, and nothing is overwritten: add --resume to go on "
            "with the run in it, or give another folder"
        )
