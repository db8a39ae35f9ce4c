"""MNIST-SVHN: a handwritten digit and a house number of the same class.

    python -m experiments.mnist_svhn --help
    python -m experiments.mnist_svhn paper --data-dir FOLDER --seeds 0 1 2

The first experiment of Shi et al. (2019), with the settings of their released code and README.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from flax import nnx

import mmvae_jax as mm
from experiments.experiment import Experiment, ExperimentData, Modules, some_rows
from experiments.run_experiment import run_from_command_line
from mmvae_jax.checks import check_count, check_positive
from mmvae_jax.data import mnist_svhn, take
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.networks.svhn import SVHNDecoder, SVHNEncoder

DIMS = {"mnist": (28, 28, 1), "svhn": (32, 32, 3)}
#: Number of training pairs for latent probes.
NUM_PROBE = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class MNISTSVHNConfig(Experiment):
    """Train an MMVAE on MNIST-SVHN, measure it on test pairs and draw figures."""

    name: ClassVar[str] = "mnist_svhn"
    num_classes: ClassVar[int] = 10
    #: Shapes of the images by modality: MNIST first, then the digits in colour.
    dims: ClassVar[Mapping[str, tuple[int, ...]]] = DIMS

    scale: float = 0.75
    """Scale of the images' Laplace likelihoods."""
    rescale: bool = True
    """Multiply the log-likelihood of MNIST by 3.92, the ratio of 3072 to 784 values."""
    hidden: int = 400
    """Width of the hidden layer of the MNIST networks."""
    pairings: int = 30
    """Number of times each digit appears, with another one of its class."""
    out: Path = Path("runs/mnist_svhn")

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("hidden", "pairings"):
            check_count(field, getattr(self, field))
        check_positive("scale", self.scale)

    def load(self) -> ExperimentData:
        """Returns pairs of the two data sets in ``data_dir``, made with the config's seed."""
        train, test = mnist_svhn(self.data_dir, num_pairings=self.pairings, seed=self.seed)
        return ExperimentData(train, test, take(train, some_rows(train, NUM_PROBE)))

    def model_config(self) -> mm.MMVAEConfig:
        """Returns a config with Laplace images."""
        return mm.MMVAEConfig(
            input_dims=self.dims,
            decoders_dist=dict.fromkeys(self.dims, "laplace"),
            decoder_dist_params={name: {"scale": self.scale} for name in self.dims},
            uses_likelihood_rescaling=self.rescale,
            **self.model_settings(),
        )

    def make_networks(self, rngs: nnx.Rngs) -> tuple[Modules, Modules]:
        """Returns the networks of Shi et al. (2019), Appendix C."""
        d, hidden, (mnist, colour) = self.network_dim, (self.hidden,), self.dims
        dim = self.dims[mnist]
        encoders = {
            mnist: MLPEncoder(dim, d, hidden=hidden, rngs=rngs),
            colour: SVHNEncoder(d, rngs=rngs),
        }
        decoders = {
            mnist: MLPDecoder(d, dim, hidden=hidden, sigmoid=True, rngs=rngs),
            colour: SVHNDecoder(d, rngs=rngs),
        }
        return encoders, decoders


PRESETS = {
    "paper": (
        "Shi et al. (2019): DReG, K=30, 20 latents, learnt prior, 30 epochs, amsgrad.",
        MNISTSVHNConfig(preset="paper", loss="dreg_looser"),
    ),
    "small": (
        "About an hour on two CPU cores: K=10, one epoch of five pairings.",
        MNISTSVHNConfig(preset="small", K=10, num_epochs=1, pairings=5, num_likelihood=200),
    ),
}

if __name__ == "__main__":
    run_from_command_line(PRESETS)
