"""MNIST-SVHN: a handwritten digit and a house number of the same class.

    python -m experiments.mnist_svhn --help
    python -m experiments.mnist_svhn paper --data-dir FOLDER --seeds 0 1 2

The first experiment of Shi et al. (2019), as their released code and README set it up.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar

from flax import nnx

import mmvae_jax as mm
from experiments.conduct import command_line
from experiments.experiment import Experiment, Modules, Problem, some_rows
from mmvae_jax.checks import check_count
from mmvae_jax.data.arrays import take
from mmvae_jax.data.mnist_svhn import mnist_svhn
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.networks.svhn import SVHNDecoder, SVHNEncoder

DIMS = {"mnist": (28, 28, 1), "svhn": (32, 32, 3)}
#: Training pairs that probes see.
NUM_PROBE = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Experiment):
    """Train an MMVAE on MNIST-SVHN, measure it on unseen pairs and draw what it generates."""

    name: ClassVar[str] = "mnist_svhn"
    num_classes: ClassVar[int] = 10

    scale: float = 0.75
    """Scale of the images' Laplace likelihoods."""
    rescale: bool = True
    """Multiply the log-likelihood of MNIST by 3.92, the ratio of the numbers of values."""
    hidden: int = 400
    """Width of the hidden layer of MNIST's networks."""
    pairings: int = 30
    """How often a digit is shown, each time with another of its class."""
    out: Path = Path("runs/mnist_svhn")

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("hidden", "pairings"):
            check_count(field, getattr(self, field))
        self.check_positive("scale")

    def load(self) -> Problem:
        """Pairs of the two data sets in ``data_dir``, made with the config's seed."""
        train, test = mnist_svhn(self.data_dir, num_pairings=self.pairings, seed=self.seed)
        return Problem(train, test, take(train, some_rows(train, NUM_PROBE)))

    def model_config(self) -> mm.MMVAEConfig:
        """Laplace images."""
        return mm.MMVAEConfig(
            input_dims=DIMS,
            decoders_dist=dict.fromkeys(DIMS, "laplace"),
            decoder_dist_params={name: {"scale": self.scale} for name in DIMS},
            uses_likelihood_rescaling=self.rescale,
            **self.model_settings(),
        )

    def make_networks(self, rngs: nnx.Rngs) -> tuple[Modules, Modules]:
        """Those of Shi et al. (2019), Appendix C."""
        d, dim, hidden = self.latent_dim, DIMS["mnist"], (self.hidden,)
        encoders = {
            "mnist": MLPEncoder(dim, d, hidden=hidden, rngs=rngs),
            "svhn": SVHNEncoder(d, rngs=rngs),
        }
        decoders = {
            "mnist": MLPDecoder(d, dim, hidden=hidden, sigmoid=True, rngs=rngs),
            "svhn": SVHNDecoder(d, rngs=rngs),
        }
        return encoders, decoders


PRESETS = {
    "paper": (
        "Shi et al. (2019): DReG, K=30, 20 latents, learnt prior, 30 epochs, amsgrad.",
        Config(preset="paper"),
    ),
    "small": (
        "An hour or so on two CPU cores: K=10, one epoch of five pairings.",
        Config(preset="small", K=10, num_epochs=1, pairings=5, num_likelihood=200),
    ),
}

if __name__ == "__main__":
    command_line(PRESETS)
