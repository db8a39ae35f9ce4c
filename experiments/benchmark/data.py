"""Batches that all contenders are given: random images, or MNIST's digits."""

import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt8

from experiments.benchmark.config import BenchmarkConfig
from mmvae_jax.data import mnist, pair_by_label

#: Colours of the modalities' digits, in turns, where a case has three channels.
TINTS = ((1.0, 0.45, 0.3), (0.35, 0.8, 1.0), (0.6, 1.0, 0.4), (1.0, 0.85, 0.3), (0.8, 0.5, 1.0))


def make_batches(config: BenchmarkConfig) -> Iterator[dict[str, Float[np.ndarray, "b h w c"]]]:
    """Yields batches of intensities from 0 to 1, float32, without end."""
    dims = {name: spec.dim for name, spec in config.model_case.modalities.items()}
    rng = np.random.default_rng(config.seed)
    size = config.num_examples
    if config.data_dir is None:
        while True:
            yield {name: rng.random((size, *dim), np.float32) for name, dim in dims.items()}
    digits = mnist(config.data_dir).train
    images, labels = np.asarray(digits.data["image"]), np.asarray(digits.labels)
    pairs = pair_by_label(dict.fromkeys(dims, labels), 1, seed=config.seed)
    tints = dict(zip(dims, itertools.cycle(TINTS), strict=False))
    while True:
        chosen = rng.integers(min(map(len, pairs.values())), size=size)
        yield {
            name: draw_digits(images[rows[chosen]], dims[name], tints[name])
            for name, rows in pairs.items()
        }


def draw_digits(
    images: UInt8[np.ndarray, "b 28 28 1"],
    dim: tuple[int, int, int],
    tint: tuple[float, float, float],
) -> Float[np.ndarray, "b h w c"]:
    """Returns digits as intensities of shape ``dim``, with a margin and, in colours, a tint."""
    margin = (dim[0] - images.shape[1]) // 2
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0))) / 255
    return (padded * (tint if dim[-1] == 3 else 1)).astype(np.float32)
