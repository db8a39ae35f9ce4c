"""Measurements of generated images: reconstruction errors and Frechet distances.

Intensities are in 0 to 1.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

import mmvae_jax as mm
from mmvae_jax.batch import Batch, MultimodalArrays, observe
from mmvae_jax.data import eval_batches
from mmvae_jax.metrics import (
    MeanCovariance,
    frechet_distance,
    generations,
    mean_covariance,
    mean_variance,
    mse,
    ssim,
)
from mmvae_jax.metrics.images import WINDOW

#: Number of examples per call of the networks.
CHUNK = 512

Features = Callable[..., Float[Array | np.ndarray, "n f"]]
#: Images by modality, and a mask of the rows that are examples.
MaskedImages = tuple[Mapping[str, Array | np.ndarray], np.ndarray]
Json = dict[str, Any]


def measure_reconstructions(model: mm.MMVAE, test: MultimodalArrays, key: PRNGKeyArray) -> Json:
    """Returns mean MSE and SSIM of images reconstructed from their own modality."""
    found: dict[str, Json] = {}
    for name in image_modalities(model.config):
        measures = {"mse": mse}
        if min(model.config.input_dims[name][:2]) >= WINDOW:
            measures["ssim"] = ssim
        totals = dict.fromkeys(measures, mean_variance(np.zeros(0)))
        for generated in generations(model, test, key, givens=[(name,)], batch_size=CHUNK):
            real = intensities(model.config, name, generated.batch)
            for measure, compute in measures.items():
                values = np.asarray(compute(real, jnp.asarray(generated.data[name])))
                part = mean_variance(values, generated.is_given)
                totals[measure] = totals[measure].merge(part)
        found[name] = {measure: float(total.mean) for measure, total in totals.items()}
    return {"reconstruction": found}


def measure_frechet(
    model: mm.MMVAE, test: MultimodalArrays, features: Mapping[str, Features], key: PRNGKeyArray
) -> Json:
    """Returns Frechet distances between real images and images generated from each source.

    The sources are the prior and each modality.

    Args:
      model: an MMVAE.
      test: real examples.
      features: feature extractor of each image modality.
      key: PRNG key.
    """
    config = model.config
    batches = list(eval_batches(test, CHUNK))
    rows = [np.asarray(batch.weight) > 0 for batch in batches]
    originals = ({name: intensities(config, name, batch) for name in features} for batch in batches)
    real = _moments(zip(originals, rows, strict=True), features)
    prior_key, given_key = jax.random.split(key)
    keys = jax.random.split(prior_key, len(batches))
    samples = (mm.generate(model, key, CHUNK) for key in keys)
    sources: dict[str, Iterable[MaskedImages]] = {"prior": zip(samples, rows, strict=True)}
    for given in config.modalities:
        some = generations(model, test, given_key, givens=[(given,)], batch_size=CHUNK)
        sources[given] = ((generated.data, generated.is_given) for generated in some)
    distances: Json = {}
    for source, images in sources.items():
        found = _moments(images, features)
        distances[source] = {name: frechet_distance(real[name], found[name]) for name in features}
    return distances


def _moments(
    batches: Iterable[MaskedImages], features: Mapping[str, Features]
) -> dict[str, MeanCovariance]:
    """Returns mean and covariance of each modality's features over the selected rows."""
    found: dict[str, MeanCovariance] = {}
    for data, rows in batches:
        for name, extract in features.items():
            part = mean_covariance(extract(data[name]), rows)
            found[name] = found[name].merge(part) if name in found else part
    return found


def image_modalities(config: mm.MMVAEConfig) -> list[str]:
    """Returns the modalities with three axes, the images."""
    return [name for name, dim in config.input_dims.items() if len(dim) == 3]


def intensities(config: mm.MMVAEConfig, name: str, data: MultimodalArrays) -> Array:
    """Returns a modality's examples as the model sees them: bytes become intensities in 0 to 1."""
    return observe(config, Batch({name: data.data[name]}), allow_absent=True).data[name]
