"""CUB image-captions: birds and sentences about them.

    python -m experiments.cub --help
    python -m experiments.cub paper --data-dir FOLDER --seeds 0 1 2

The second experiment of Shi et al. (2019). Training and test species are disjoint, so no classifier
can judge test images. The experiment measures the correlation of images and captions instead
(section 4.3). The default image features need no download; ``--inception`` selects InceptionV3.
"""

import dataclasses
import functools
from collections.abc import Sequence
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
from experiments.cca import fit_cca
from experiments.experiment import Experiment, ExperimentData, Modules, some_rows
from experiments.image_measurements import CHUNK, Features, intensities
from experiments.run_experiment import run_from_command_line
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_positive
from mmvae_jax.data import cub, cub_vocabulary, decode_captions, eval_batches, take
from mmvae_jax.metrics import as_examples, generations, load_inception
from mmvae_jax.networks.cub import (
    CUBCaptionDecoder,
    CUBCaptionEncoder,
    CUBImageDecoder,
    CUBImageEncoder,
)

IMAGE_DIM = (64, 64, 3)
CAPTION_LENGTH = 32
#: Largest number of training pairs that correlations are fitted to.
NUM_FITTED = 10_000
#: Largest numbers of canonical axes and of dimensions of a caption embedding.
NUM_AXES, NUM_TOPICS = 40, 100
#: Side in pixels of the squares whose mean colours are the default image features.
SQUARE = 8

Codes = Int[Array | np.ndarray, "n position"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CUBConfig(Experiment):
    """Train an MMVAE on CUB image-captions, measure it on test pairs and draw figures."""

    name: ClassVar[str] = "cub"
    num_classes: ClassVar[int] = 0

    scale: float = 0.01
    """Scale of the images' Laplace likelihood."""
    image_factor: float = CAPTION_LENGTH / (64 * 64 * 3)
    """Factor of the images' log-likelihood; the default of Shi et al. is words over values."""
    latent_dim: int = 64
    K: int = 50
    batch_size: int = 64
    num_epochs: int | None = 50
    num_samples: int = 1000
    out: Path = Path("runs/cub")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("scale", self.scale)
        check_positive("image_factor", self.image_factor)

    def load(self) -> ExperimentData:
        """Returns the data set in ``data_dir`` with all images in memory."""
        train, test, vocabulary = cub(self.data_dir)

        def as_text(captions: np.ndarray) -> list[str]:
            codes = captions if captions.ndim == 2 else captions.argmax(-1)
            return decode_captions(codes, vocabulary)

        return ExperimentData(
            train, test, take(train, some_rows(train, NUM_FITTED)), {"caption": as_text}
        )

    def model_config(self) -> mm.MMVAEConfig:
        """Returns a config with Laplace images and categorical words; padding counts as a word."""
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
        """Returns the networks of Shi et al. (2019); caption networks share a word embedding."""
        d = self.network_dim
        caption = CUBCaptionEncoder(d, num_words=len(_vocabulary(self.data_dir)), rngs=rngs)
        encoders = {"image": CUBImageEncoder(d, rngs=rngs), "caption": caption}
        decoders = {
            "image": CUBImageDecoder(d, rngs=rngs),
            "caption": CUBCaptionDecoder(d, caption.embedding, rngs=rngs),
        }
        return encoders, decoders

    def measure_more(
        self, model: mm.MMVAE, problem: ExperimentData, test: MultimodalArrays, key: PRNGKeyArray
    ) -> dict[str, Any]:
        """Returns mean correlations, in -1 to 1, of real and generated images and captions.

        ``fit_cca`` is fitted to image features (``square_colours`` or InceptionV3) and caption
        embeddings (``fit_topics``) of training pairs.
        """
        config = model.config
        image_features = load_inception(self.inception) if self.inception else square_colours
        captions = problem.probe.data["caption"][:]
        embed = fit_topics(captions, config.input_dims["caption"][-1])

        def embed_probabilities(x: Array | np.ndarray) -> np.ndarray:
            return np.asarray(embed(np.asarray(x).argmax(-1)))

        def features(data: MultimodalArrays) -> tuple[np.ndarray, np.ndarray]:
            batches = list(eval_batches(data, CHUNK))
            rows = [np.asarray(batch.weight) > 0 for batch in batches]
            images = [image_features(intensities(config, "image", batch)) for batch in batches]
            return _join(images, rows), _join([embed(b.data["caption"][:]) for b in batches], rows)

        def generated(given: str, target: str, features: Features) -> np.ndarray:
            parts = list(generations(model, test, given_key, givens=[(given,)], batch_size=CHUNK))
            rows = [part.is_given for part in parts]
            return _join([features(part.data[target]) for part in parts], rows)

        x, y = features(problem.probe)
        cca = fit_cca(x, y, num_axes=min(NUM_AXES, x.shape[1], y.shape[1]))
        x, y = features(test)
        given_key, joint_key = jax.random.split(key)
        samples = mm.generate(model, joint_key, self.num_samples)
        words = as_examples(config, "caption", samples["caption"])
        found = {
            "real": cca.score(x, y),
            "image to caption": cca.score(x, generated("image", "caption", embed_probabilities)),
            "caption to image": cca.score(generated("caption", "image", image_features), y),
            "joint": cca.score(image_features(samples["image"]), embed_probabilities(words)),
        }
        return {"correlation": {name: float(scores.mean()) for name, scores in found.items()}}


def square_colours(images: Float[Array | np.ndarray, "n h w c"]) -> Float[np.ndarray, "n f"]:
    """Returns the mean colours of each image in the squares of a grid."""
    n, height, width, channels = images.shape
    shape = (n, height // SQUARE, SQUARE, width // SQUARE, SQUARE, channels)
    return np.asarray(images).reshape(shape).mean((2, 4)).reshape(n, -1)


def fit_topics(captions: Codes, num_words: int) -> Features:
    """Returns an embedding of captions by latent semantic analysis (Deerwester et al., 1990).

    Word counts are weighted by inverse document frequency (TF-IDF), then projected onto the leading
    singular vectors of ``captions``.
    """
    num_topics = min(NUM_TOPICS, num_words - 1)
    analysis = make_pipeline(TfidfTransformer(), TruncatedSVD(num_topics, random_state=0))
    analysis.fit(_word_counts(captions, num_words))
    return lambda codes: analysis.transform(_word_counts(codes, num_words))


def _word_counts(codes: Codes, num_words: int) -> csr_matrix:
    """Returns counts ``[n, word]``."""
    codes = np.asarray(codes)
    rows = np.repeat(np.arange(len(codes)), codes.shape[1])
    ones = np.ones(codes.size)
    return csr_matrix((ones, (rows, codes.ravel())), shape=(len(codes), num_words))


def _join(parts: Sequence[Array | np.ndarray], rows: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the selected rows of all parts in one array."""
    pairs = zip(parts, rows, strict=True)
    return np.concatenate([np.asarray(part)[kept] for part, kept in pairs])


@functools.cache
def _vocabulary(data_dir: Path | None) -> tuple[str, ...]:
    return cub_vocabulary(data_dir)


PRESETS = {
    "paper": (
        "Shi et al. (2019): DReG, K=50, 64 latents, learnt prior, 50 epochs, amsgrad.",
        CUBConfig(preset="paper", loss="dreg_looser"),
    ),
    "small": (
        "Hours on two CPU cores: K=5, 2,000 steps.",
        CUBConfig(preset="small", K=5, num_steps=2000, num_epochs=None, num_likelihood=0),
    ),
}

if __name__ == "__main__":
    run_from_command_line(PRESETS)
