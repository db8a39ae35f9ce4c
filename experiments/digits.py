"""PolyDigits: each example shows one handwritten digit in several images.

    python -m experiments.digits --help

The images of an example have different handwritings and photographs as backgrounds. The program
trains an MMVAE, measures it on test digits, draws figures, and writes all results to one folder.
A stopped run can be resumed.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import optax
import tyro
from flax import nnx

import mmvae_jax as mm
from experiments.experiment import Experiment, ExperimentData, Modules, is_count
from experiments.run_experiment import run_from_command_line
from mmvae_jax.checks import check_choice, check_count, check_positive
from mmvae_jax.data import decode_words, num_examples, polydigits, take
from mmvae_jax.data.datasets.digit_words import ALPHABET, WORD_LENGTH, WORDS
from mmvae_jax.data.datasets.polydigits import IMAGE_SIZE, MAX_MODALITIES
from mmvae_jax.networks.images import ConvDecoder, ConvEncoder
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder

TEXT = "word"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigitsConfig(Experiment):
    """Train an MMVAE on PolyDigits, measure it on test digits and draw figures."""

    name: ClassVar[str] = "digits"
    num_classes: ClassVar[int] = len(WORDS)

    data_dir: tyro.conf.Suppress[Path | None] = None  # PolyDigits needs no files
    modalities: int = 3
    """Number of images per example, 2 to 5."""
    text: bool = False
    """Add the digit's name as a modality called word."""
    networks: Literal["mlp", "conv"] = "mlp"
    """Kind of image encoders and decoders; words always have MLPs."""
    hidden: tuple[int, ...] = (512,)
    """Widths of the encoders' dense layers, reversed in decoders; conv networks have one."""
    features: tuple[int, ...] = (32, 64)
    """Channels of convolutional encoders, reversed in decoders."""
    scale: float = 0.1
    """Scale of the images' Laplace likelihood; smaller scales give sharper images."""
    learn_scale: bool = False
    """Train the scale of every image from this value on."""
    pairings: int = 20
    """Number of times each training digit appears, with other digits of its class."""
    latent_dim: int = 12
    K: int = 5
    batch_size: int = 64
    learning_rate: float = 2e-3
    """Peak learning rate: a warm-up of 100 steps (at most 10%), then cosine decay to 2%."""
    amsgrad: bool = False
    num_steps: int | None = 1500
    num_epochs: int | None = None
    log_every: int = 10
    num_samples: int = 1000
    num_likelihood: int = 0
    num_particles: int = 100
    out: Path = Path("runs/digits")

    def __post_init__(self) -> None:
        super().__post_init__()
        is_offered = is_count(self.modalities, 2) and self.modalities <= MAX_MODALITIES
        self.check("modalities", is_offered, f"give an integer from 2 to {MAX_MODALITIES}")
        check_choice("networks", self.networks, tuple(NETWORKS))
        for field in ("hidden", "features"):
            sizes = getattr(self, field)
            are_counts = bool(sizes) and all(map(is_count, sizes))
            self.check(field, are_counts, "give one or more integers of at least 1")
        is_hidden = self.networks != "conv" or len(self.hidden) == 1
        self.check("hidden", is_hidden, "give one width, or choose networks='mlp'")
        is_features = 2 ** len(self.features) <= IMAGE_SIZE
        self.check("features", is_features, "give at most 4: each halves images of 16 pixels")
        check_positive("scale", self.scale)
        check_count("pairings", self.pairings)

    def load(self) -> ExperimentData:
        """Returns PolyDigits; ``probe`` has each training digit once, with its first pairing."""
        found = polydigits(
            self.modalities, num_pairings=self.pairings, text=self.text, seed=self.seed
        )
        once = np.arange(num_examples(found.train) // self.pairings)
        return ExperimentData(
            found.train, found.test, take(found.train, once), {TEXT: decode_words}
        )

    def model_config(self) -> mm.MMVAEConfig:
        """Returns a config with Laplace images and categorical words."""
        images = [f"m{m}" for m in range(self.modalities)]
        words = [TEXT] * self.text
        scale = mm.Learned(self.scale) if self.learn_scale else self.scale
        return mm.MMVAEConfig(
            input_dims={name: (IMAGE_SIZE, IMAGE_SIZE, 3) for name in images}
            | {name: (WORD_LENGTH, len(ALPHABET)) for name in words},
            decoders_dist=dict.fromkeys(images, "laplace") | dict.fromkeys(words, "categorical"),
            decoder_dist_params={name: {"scale": scale} for name in images},
            **self.model_settings(),
        )

    def make_networks(self, rngs: nnx.Rngs) -> tuple[Modules, Modules]:
        """Returns networks of the chosen kind for images, and MLPs for words."""
        encoders, decoders = {}, {}
        for name, dim in self.model_config().input_dims.items():
            make = NETWORKS["mlp" if name == TEXT else self.networks]
            encoders[name], decoders[name] = make(self, dim, rngs)
        return encoders, decoders

    def schedule(self, num_steps: int) -> optax.Schedule:
        """Returns a linear warm-up followed by cosine decay."""
        return optax.warmup_cosine_decay_schedule(
            0.0,
            self.learning_rate,
            warmup_steps=min(100, num_steps // 10),
            decay_steps=num_steps,
            end_value=0.02 * self.learning_rate,
        )


def mlp_networks(
    config: DigitsConfig, dim: tuple[int, ...], rngs: nnx.Rngs
) -> tuple[nnx.Module, nnx.Module]:
    """Returns an MLP encoder and decoder; decoded images are intensities in 0 to 1."""
    is_image = len(dim) == 3
    decoder_hidden = config.hidden[::-1]
    return (
        MLPEncoder(dim, config.network_dim, hidden=config.hidden, rngs=rngs),
        MLPDecoder(config.network_dim, dim, hidden=decoder_hidden, sigmoid=is_image, rngs=rngs),
    )


def conv_networks(
    config: DigitsConfig, dim: tuple[int, ...], rngs: nnx.Rngs
) -> tuple[nnx.Module, nnx.Module]:
    """Returns a convolutional encoder and decoder of images."""
    (hidden,), features = config.hidden, config.features
    return (
        ConvEncoder(dim, config.network_dim, features=features, hidden=hidden, rngs=rngs),
        ConvDecoder(
            config.network_dim, dim, features=features[::-1], hidden=hidden, sigmoid=True, rngs=rngs
        ),
    )


NETWORKS = {"mlp": mlp_networks, "conv": conv_networks}


if __name__ == "__main__":
    run_from_command_line(DigitsConfig)
