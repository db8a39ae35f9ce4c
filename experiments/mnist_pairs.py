"""Pairs of MNIST digits: two handwritings of one class.

    python -m experiments.mnist_pairs --help

An experiment on 60,000 real examples that is small enough for many runs.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar

from flax import nnx

import mmvae_jax as mm
from experiments.experiment import Experiment, ExperimentData, Modules, some_rows
from experiments.run_experiment import run_from_command_line
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_count, check_positive
from mmvae_jax.data import Splits, mnist, take
from mmvae_jax.data.pairing import pair_images
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder

NAMES = ("m0", "m1")
DIM = (28, 28, 1)
#: Number of training pairs for latent probes.
NUM_PROBE = 5000


@dataclasses.dataclass(frozen=True, kw_only=True)
class MNISTPairsConfig(Experiment):
    """Train an MMVAE on pairs of MNIST digits, measure it on test pairs and draw figures."""

    name: ClassVar[str] = "mnist_pairs"
    num_classes: ClassVar[int] = 10

    scale: float = 0.75
    """Scale of the images' Laplace likelihood."""
    hidden: int = 400
    """Width of the hidden layer of each network."""
    K: int = 10
    num_epochs: int | None = 3
    num_test: int = 2000
    num_samples: int = 2000
    num_likelihood: int = 500
    num_particles: int = 500
    out: Path = Path("runs/mnist_pairs")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("hidden", self.hidden)
        check_positive("scale", self.scale)

    def load(self) -> ExperimentData:
        """Returns pairs of MNIST digits of one class, made with the config's seed."""
        train, test = mnist_pairs(mnist(self.data_dir), self.seed)
        return ExperimentData(train, test, take(train, some_rows(train, NUM_PROBE)))

    def model_config(self) -> mm.MMVAEConfig:
        """Returns a config with Laplace images."""
        return mm.MMVAEConfig(
            input_dims=dict.fromkeys(NAMES, DIM),
            decoders_dist=dict.fromkeys(NAMES, "laplace"),
            decoder_dist_params={name: {"scale": self.scale} for name in NAMES},
            **self.model_settings(),
        )

    def make_networks(self, rngs: nnx.Rngs) -> tuple[Modules, Modules]:
        """Returns the MNIST networks of Shi et al. (2019)."""
        d, hidden = self.network_dim, (self.hidden,)
        encoders = {name: MLPEncoder(DIM, d, hidden=hidden, rngs=rngs) for name in NAMES}
        decoders = {
            name: MLPDecoder(d, DIM, hidden=hidden, sigmoid=True, rngs=rngs) for name in NAMES
        }
        return encoders, decoders


def mnist_pairs(digits: Splits, seed: int) -> Splits:
    """Returns pairs in which every digit occurs once in each modality."""

    def pair(split: int) -> MultimodalArrays:
        return pair_images(dict.fromkeys(NAMES, digits[split]), 1, seed=(seed, split))

    return Splits(pair(0), pair(1))


if __name__ == "__main__":
    run_from_command_line(MNISTPairsConfig)
