"""``mmvae export``: a model that runs without this package."""

import dataclasses
import json
from pathlib import Path
from typing import Literal

import mmvae_jax as mm
from mmvae_jax.cli.arguments import RunFolder, Step
from mmvae_jax.estimator.run_folder import open_run
from mmvae_jax.saving.files import write_text

VIEWS_FILE = "views.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write encode, decode and predict as StableHLO programs, which need JAX but not mmvae_jax.

    Inputs and outputs are the model's own: (row - mean) / scale, and logits of classes. The file
    views.json beside the programs holds the mean and scale of every modality.
    """

    run_dir: RunFolder
    out: Path
    """New folder for the programs; mmvae_jax.load_exported reads it."""
    platforms: tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...] = ("cpu", "cuda", "tpu")
    """Platforms to compile for."""
    num_samples: int = 1
    """Draws for each row."""
    step: Step = None

    def run(self) -> None:
        """Writes the folder, or nothing if anything is wrong."""
        run = open_run(self.run_dir)
        trained, step = run.load(self.step)
        mm.export(trained.model, self.out, platforms=self.platforms, num_samples=self.num_samples)
        views = {name: view.to_json() for name, view in run.views.items()}
        write_text(self.out / VIEWS_FILE, json.dumps(views, indent=2) + "\n")
        print(f"step {step} of {self.run_dir} in {self.out}, for {', '.join(self.platforms)}")
