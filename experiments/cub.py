"""CUB image-captions: birds and sentences about them.

    python -m experiments.cub --help
    python -m experiments.cub paper --data-dir FOLDER --seeds 0 1 2

The second experiment of Shi et al. (2019). Test species are none of those trained on, so nothing
here is told by class: the measure is the correlation of images and captions (section 4.3), with
features that need no downloads unless ``--inception`` gives some.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray
from scipy.sparse import csr_matrix
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.pipeline import make_pipeline

import mmvae_jax as mm
from experiments.conduct import command_line
from experiments.experiment import Experiment, Modules, Problem, some_rows
from experiments.measures import CHUNK, intensities
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data.arrays import take
from mmvae_jax.data.cub import cub, cub_vocabulary, decode_captions
from mmvae_jax.data.eval_batches import eval_batches
from mmvae_jax.metrics.cca import fit_cca
from mmvae_jax.metrics.generation import as_examples, generations
from mmvae_jax.metrics.inception import load_inception
from mmvae_jax.networks.cub import (
    CUBCaptionDecoder,
    CUBCaptionEncoder,
    CUBImageDecoder,
    CUBImageEncoder,
)

IMAGE_DIM = (64, 64, 3)
CAPTION_LENGTH = 32
#: Training pairs that correlations are fitted to, at most.
NUM_FITTED = 10_000
#: Axes of the correlation, and of a caption's embedding before it, at most.
NUM_AXES, NUM_TOPICS = 40, 100
#: Side of the squares whose mean colours stand for an image without Inception's weights.
SQUARE = 8

Codes = Int[Array | np.ndarray, "n position"]
Features = Callable[..., Float[Array | np.ndarray, "n f"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Experiment):
    """Train an MMVAE on CUB image-captions, measure it and draw what it generates."""

    name: ClassVar[str] = "cub"
    num_classes: ClassVar[int] = 0

    scale: float = 0.01
    """Scale of the images' Laplace likelihood."""
    image_factor: float = CAPTION_LENGTH / (64 * 64 * 3)
    """Factor of the images' log-likelihood: by default that of Shi et al., words over values."""
    latent_dim: int = 64
    K: int = 50
    batch_size: int = 64
    num_epochs: int | None = 50
    num_samples: int = 1000
    out: Path = Path("runs/cub")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_positive("scale", "image_factor")

    def load(self) -> Problem:
        """The data set in ``data_dir``, all images in memory."""
        train, test, vocabulary = cub(self.data_dir)

        def as_text(captions: np.ndarray) -> list[str]:
            codes = captions if captions.ndim == 2 else captions.argmax(-1)
            return decode_captions(codes, vocabulary)

        return Problem(train, test, take(train, some_rows(train, NUM_FITTED)), {"caption": as_text})

    def model_config(self) -> mm.MMVAEConfig:
        """Laplace images and categorical words; padding is a word like any other."""
        num_words = len(_vocabulary(self.data_dir))
        return mm.MMVAEConfig(
            input_dims={"image": IMAGE_DIM, "caption": (CAPTION_LENGTH, num_words)},
            decoders_dist={"image": "laplace", "caption": "categorical"},
            decoder_dist_params={"image": {"scale": self.scale}},
            uses_likelihood_rescaling=True,
            rescale_factors={"image": self.image_factor, "caption": 1.0},
            **self.model_settings(),
        )

    def make_networks(self, rngs: nnx.Rngs) -> tuple[Modules, Modules]:
        """Those of Shi et al. (2019); both caption networks have one embedding of words."""
        d = self.latent_dim
        caption = CUBCaptionEncoder(d, num_words=len(_vocabulary(self.data_dir)), rngs=rngs)
        encoders = {"image": CUBImageEncoder(d, rngs=rngs), "caption": caption}
        decoders = {
            "image": CUBImageDecoder(d, rngs=rngs),
            "caption": CUBCaptionDecoder(d, caption.embedding, rngs=rngs),
        }
        return encoders, decoders

    def measure_more(
        self, model: mm.MMVAE, problem: Problem, test: MultimodalArrays, key: PRNGKeyArray
    ) -> dict[str, Any]:
        """Correlations of images and captions, real and generated, means over pairs in -1 to 1.

        Protocol: ``fit_cca`` on training pairs, of image features (``square_colours``, or
        Inception's) and caption embeddings (``fit_topics``).
        """
        config = model.config
        fitted = problem.probe
        look = square_colours if self.inception is None else load_inception(self.inception)
        num_words = config.input_dims["caption"][-1]
        read = fit_topics(fitted.data["caption"][:], num_words)

        def features(data: MultimodalArrays) -> tuple[np.ndarray, np.ndarray]:
            batches = list(eval_batches(data, CHUNK))
            rows = [np.asarray(batch.weight) > 0 for batch in batches]
            images = [look(intensities(config, "image", batch)) for batch in batches]
            captions = [read(batch.data["caption"][:]) for batch in batches]
            return _join(images, rows), _join(captions, rows)

        x, y = features(fitted)
        cca = fit_cca(x, y, num_axes=min(NUM_AXES, x.shape[1], y.shape[1]))
        given_key, joint_key = jax.random.split(key)
        real_x, real_y = features(test)
        found = {"real": cca.score(real_x, real_y)}
        for given in ("image", "caption"):
            parts = list(generations(model, test, given_key, givens=[(given,)], batch_size=CHUNK))
            rows = [part.is_given for part in parts]
            if given == "image":
                made = _join([read(_codes(part.data["caption"])) for part in parts], rows)
                found["image to caption"] = cca.score(real_x, made)
            else:
                made = _join([look(part.data["image"]) for part in parts], rows)
                found["caption to image"] = cca.score(made, real_y)
        samples = mm.generate(model, joint_key, self.num_samples)
        captions = as_examples(config, "caption", samples["caption"])
        found["joint"] = cca.score(look(samples["image"]), read(_codes(captions)))
        return {"correlation": {name: float(scores.mean()) for name, scores in found.items()}}


def square_colours(images: Float[Array | np.ndarray, "n h w c"]) -> Float[np.ndarray, "n f"]:
    """Returns the mean colours of the squares of a grid over each image."""
    n, height, width, channels = images.shape
    shape = (n, height // SQUARE, SQUARE, width // SQUARE, SQUARE, channels)
    return np.asarray(images).reshape(shape).mean((2, 4)).reshape(n, -1)


def fit_topics(captions: Codes, num_words: int) -> Features:
    """Returns an embedding of captions by latent semantic analysis (Deerwester et al., 1990).

    Words are counted, weighted by how few of the captions given here have them, and projected onto
    the directions in which these vary most.
    """
    num_topics = min(NUM_TOPICS, num_words - 1)
    analysis = make_pipeline(TfidfTransformer(), TruncatedSVD(num_topics, random_state=0))
    analysis.fit(_word_counts(captions, num_words))
    return lambda codes: analysis.transform(_word_counts(codes, num_words))


def _word_counts(codes: Codes, num_words: int) -> csr_matrix:
    codes = np.asarray(codes)
    rows = np.repeat(np.arange(len(codes)), codes.shape[1])
    ones = np.ones(codes.size)
    return csr_matrix((ones, (rows, codes.ravel())), shape=(len(codes), num_words))


def _codes(captions: Float[Array | np.ndarray, "n position word"]) -> Int[np.ndarray, "n position"]:
    return np.asarray(captions).argmax(-1)


def _join(parts: Sequence[Array | np.ndarray], rows: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of all parts that count."""
    pairs = zip(parts, rows, strict=True)
    return np.concatenate([np.asarray(part)[kept] for part, kept in pairs])


@functools.cache
def _vocabulary(data_dir: Path | None) -> tuple[str, ...]:
    return cub_vocabulary(data_dir)


PRESETS = {
    "paper": (
        "Shi et al. (2019): DReG, K=50, 64 latents, learnt prior, 50 epochs, amsgrad.",
        Config(preset="paper"),
    ),
    "small": (
        "Hours on two CPU cores: K=5, 2,000 steps.",
        Config(preset="small", K=5, num_steps=2000, num_epochs=None, num_likelihood=0),
    ),
}

if __name__ == "__main__":
    command_line(PRESETS)
