"""MNIST and digit scenes: the protocol of MNIST-SVHN on data that are made from MNIST.

    python -m experiments.mnist_scenes --help
    python -m experiments.mnist_scenes paper --data-dir FOLDER --seeds 0 1 2

Networks, settings and measurements are those of ``experiments.mnist_svhn``. In the place of SVHN
stand the pictures of ``experiments.digit_scenes``, so its published values are not comparable.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from experiments import mnist_svhn
from experiments.digit_scenes import SIZE, mnist_scenes
from experiments.experiment import ExperimentData, some_rows
from experiments.run_experiment import run_from_command_line
from mmvae_jax.data import take


@dataclasses.dataclass(frozen=True, kw_only=True)
class MNISTScenesConfig(mnist_svhn.MNISTSVHNConfig):
    """Train an MMVAE on MNIST and digit scenes, measure it on test pairs and draw figures."""

    name: ClassVar[str] = "mnist_scenes"
    dims: ClassVar[Mapping[str, tuple[int, ...]]] = {
        "mnist": mnist_svhn.DIMS["mnist"],
        "scene": (SIZE, SIZE, 3),
    }

    out: Path = Path("runs/mnist_scenes")

    def load(self) -> ExperimentData:
        """Returns pairs of digits and scenes, made with the config's seed."""
        train, test = mnist_scenes(self.data_dir, num_pairings=self.pairings, seed=self.seed)
        return ExperimentData(train, test, take(train, some_rows(train, mnist_svhn.NUM_PROBE)))


PRESETS = {
    "paper": (
        "Shi et al. (2019): DReG, K=30, 20 latents, learnt prior, 30 epochs, amsgrad.",
        MNISTScenesConfig(preset="paper", loss="dreg_looser"),
    ),
    "small": (
        "About 25 minutes on two CPU cores: K=10, 3000 steps, adaptive DReG.",
        MNISTScenesConfig(
            preset="small", K=10, num_epochs=None, num_steps=3000, num_likelihood=200
        ),
    ),
}

if __name__ == "__main__":
    run_from_command_line(PRESETS)
