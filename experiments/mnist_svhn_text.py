"""MNIST-SVHN-Text: a handwritten digit, a house number of the same class, and the digit's name.

    python -m experiments.mnist_svhn_text --help
    python -m experiments.mnist_svhn_text mopoe --data-dir FOLDER --seeds 0 1 2

The data set of Sutter et al. (2020), with the settings of their own models.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar

from flax import nnx

import mmvae_jax as mm
from experiments import mnist_svhn
from experiments.experiment import ExperimentData, Modules, some_rows
from experiments.run_experiment import run_from_command_line
from mmvae_jax.data import decode_words, take
from mmvae_jax.data.datasets.digit_words import ALPHABET, WORD_LENGTH
from mmvae_jax.networks.text import TextDecoder, TextEncoder

DIMS = {**mnist_svhn.DIMS, "text": (WORD_LENGTH, len(ALPHABET))}
#: Factors of the log-likelihoods: the 3072 values of SVHN over the number of values of a modality.
#: A text counts as eight values, one per character.
_FACTORS = {"mnist": 3072 / 784, "svhn": 1.0, "text": 3072 / WORD_LENGTH}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MNISTSVHNTextConfig(mnist_svhn.MNISTSVHNConfig):
    """Train an MMVAE on MNIST-SVHN-Text, measure it on test examples and draw figures."""

    name: ClassVar[str] = "mnist_svhn_text"

    rescale: bool = True
    """Multiply the log-likelihood of MNIST by 3.92 (3072/784) and of text by 384 (3072/8)."""
    pairings: int = 20
    out: Path = Path("runs/mnist_svhn_text")

    def load(self) -> ExperimentData:
        """Returns triples from the data sets in ``data_dir``, made with the config's seed."""
        train, test = mm.data.mnist_svhn(
            self.data_dir, num_pairings=self.pairings, text=True, seed=self.seed
        )
        probe = take(train, some_rows(train, mnist_svhn.NUM_PROBE))
        return ExperimentData(train, test, probe, {"text": decode_words})

    def model_config(self) -> mm.MMVAEConfig:
        """Returns a config with Laplace images and categorical characters."""
        images = super().model_config()
        return images.replace(
            input_dims=DIMS,
            n_modalities=None,
            decoders_dist={**(images.decoders_dist or {}), "text": "categorical"},
            rescale_factors=_FACTORS if self.rescale else None,
            decoder_dist_params={**(images.decoder_dist_params or {}), "text": {}},
        )

    def make_networks(self, rngs: nnx.Rngs) -> tuple[Modules, Modules]:
        """Returns image networks of Shi et al. (2019) and text networks of Sutter et al. (2020)."""
        encoders, decoders = super().make_networks(rngs)
        encoders["text"] = TextEncoder(self.network_dim, rngs=rngs)
        decoders["text"] = TextDecoder(self.network_dim, rngs=rngs)
        return encoders, decoders


PRESETS = {
    "mopoe": (
        "Sutter et al. (2020): K=1, beta=2.5, normal posteriors and prior, 200 epochs, Adam.",
        MNISTSVHNTextConfig(
            preset="mopoe",
            loss="elbo",
            K=1,
            beta=2.5,
            posterior="normal",
            learn_prior=False,
            batch_size=256,
            num_epochs=200,
            amsgrad=False,
        ),
    ),
    "paper": (
        "Shi et al. (2019) on MNIST-SVHN: DReG, K=30, learnt prior, 30 epochs, amsgrad.",
        MNISTSVHNTextConfig(preset="paper", loss="dreg_looser"),
    ),
}

if __name__ == "__main__":
    run_from_command_line(PRESETS)
