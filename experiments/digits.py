"""PolyDigits: handwritten digits on photographs, several pictures of one digit at a time.

    python -m experiments.digits --help

Trains an MMVAE, measures it on unseen digits, draws what it generates, and leaves all of that in
one folder, from which a run that was stopped can go on.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
import optax
from flax import nnx

import mmvae_jax as mm
from experiments.conduct import command_line
from experiments.experiment import Experiment, Modules, Problem, is_count
from mmvae_jax.checks import check_count
from mmvae_jax.data.arrays import num_examples, take
from mmvae_jax.data.polydigits import (
    ALPHABET,
    IMAGE_SIZE,
    MAX_MODALITIES,
    WORD_LENGTH,
    WORDS,
    decode_words,
    polydigits,
)
from mmvae_jax.networks.images import ConvDecoder, ConvEncoder
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder

Networks = Literal["mlp", "conv"]
TEXT = "word"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Experiment):
    """Train an MMVAE on PolyDigits, measure it on unseen digits and draw what it generates."""

    name: ClassVar[str] = "digits"
    num_classes: ClassVar[int] = len(WORDS)

    modalities: int = 3
    """Images per example, 2 to 5: one digit in as many handwritings and sceneries."""
    text: bool = False
    """Add the digit's name as one more modality, ``word``."""
    networks: Networks = "mlp"
    """Encoders and decoders of the images; those of words are always MLPs."""
    hidden: tuple[int, ...] = (512,)
    """Widths of an encoder's dense hidden layers, in reverse those of the decoder; convolutional
    networks have one."""
    features: tuple[int, ...] = (32, 64)
    """Channels of a convolutional encoder, in reverse those of the decoder."""
    scale: float = 0.1
    """Scale of the images' Laplace likelihood: a smaller one asks for sharper pictures."""
    pairings: int = 20
    """How often a training digit is shown, each time with others of its class."""
    latent_dim: int = 12
    K: int = 5
    batch_size: int = 64
    learning_rate: float = 2e-3
    """Highest rate of Adam: reached after 100 steps (or a tenth of the run, if that is less), it
    falls to 2% along a cosine."""
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
        is_offered = is_count(self.modalities) and 2 <= self.modalities <= MAX_MODALITIES
        self.check("modalities", is_offered, f"give an integer from 2 to {MAX_MODALITIES}")
        is_kind = self.networks in get_args(Networks)
        self.check("networks", is_kind, f"choose one of {list(get_args(Networks))}")
        for field in ("hidden", "features"):
            sizes = getattr(self, field)
            is_good = bool(sizes) and all(map(is_count, sizes))
            self.check(field, is_good, "give one or more integers of at least 1")
        is_hidden = self.networks != "conv" or len(self.hidden) == 1
        self.check("hidden", is_hidden, "give one width, or choose networks='mlp'")
        is_features = 2 ** len(self.features) <= IMAGE_SIZE
        self.check("features", is_features, "give at most 4: each halves images of 16 pixels")
        self.check_positive("scale")
        check_count("pairings", self.pairings)

    def load(self) -> Problem:
        """PolyDigits; probes see each training digit once: other pairings only change scenery."""
        found = polydigits(
            self.modalities, num_pairings=self.pairings, text=self.text, seed=self.seed
        )
        once = np.arange(num_examples(found.train) // self.pairings)
        return Problem(found.train, found.test, take(found.train, once), {TEXT: decode_words})

    def model_config(self) -> mm.MMVAEConfig:
        """Laplace images and categorical words."""
        images = [f"m{m}" for m in range(self.modalities)]
        words = [TEXT] * self.text
        return mm.MMVAEConfig(
            input_dims={name: (IMAGE_SIZE, IMAGE_SIZE, 3) for name in images}
            | {name: (WORD_LENGTH, len(ALPHABET)) for name in words},
            decoders_dist=dict.fromkeys(images, "laplace") | dict.fromkeys(words, "categorical"),
            decoder_dist_params={name: {"scale": self.scale} for name in images},
            **self.model_settings(),
        )

    def make_networks(self, rngs: nnx.Rngs) -> tuple[Modules, Modules]:
        """The chosen kind for images."""
        encoders, decoders = {}, {}
        for name, dim in self.model_config().input_dims.items():
            make = NETWORKS["mlp" if name == TEXT else self.networks]
            encoders[name], decoders[name] = make(self, dim, rngs)
        return encoders, decoders

    def schedule(self, num_steps: int) -> optax.Schedule:
        """A rate that rises, then falls."""
        return optax.warmup_cosine_decay_schedule(
            0.0,
            self.learning_rate,
            warmup_steps=min(100, num_steps // 10),
            decay_steps=num_steps,
            end_value=0.02 * self.learning_rate,
        )


def mlp_networks(
    config: Config, dim: tuple[int, ...], rngs: nnx.Rngs
) -> tuple[nnx.Module, nnx.Module]:
    """Fully connected networks; what they decode is intensities if it has the shape of an image."""
    is_image = len(dim) == 3
    decoder_hidden = config.hidden[::-1]
    return (
        MLPEncoder(dim, config.latent_dim, hidden=config.hidden, rngs=rngs),
        MLPDecoder(config.latent_dim, dim, hidden=decoder_hidden, sigmoid=is_image, rngs=rngs),
    )


def conv_networks(
    config: Config, dim: tuple[int, ...], rngs: nnx.Rngs
) -> tuple[nnx.Module, nnx.Module]:
    """Convolutional networks for images."""
    (hidden,), features = config.hidden, config.features
    return (
        ConvEncoder(dim, config.latent_dim, features=features, hidden=hidden, rngs=rngs),
        ConvDecoder(
            config.latent_dim, dim, features=features[::-1], hidden=hidden, sigmoid=True, rngs=rngs
        ),
    )


NETWORKS = {"mlp": mlp_networks, "conv": conv_networks}


if __name__ == "__main__":
    command_line(Config)
