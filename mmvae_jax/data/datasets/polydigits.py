"""PolyDigits: several images of one digit, in different handwriting on different photographs.

A small relative of PolyMNIST (Sutter, Daunhawer and Vogt, 2021, "Generalized multimodal ELBO"),
made from files that scikit-learn ships: 1,797 digits of 8 x 8 pixels and two photographs. The
modalities of an example share the class of the digit and nothing else.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_at_least
from mmvae_jax.data.datasets.digit_words import WORDS, encode_words

IMAGE_SIZE = 16
MAX_MODALITIES = 5
_TEST_SHARE = 0.2
_TRAIN, _TEST = 0, 1


class _Scenery(NamedTuple):
    """A part of a photograph, recoloured from ``darkest`` to ``brightest`` (RGB, 0 to 1).

    Both colours are dark or both are bright, so that an inverted piece always contrasts with it.
    """

    photo: str
    rows: slice
    columns: slice
    darkest: tuple[float, float, float]
    brightest: tuple[float, float, float]


_SCENERIES = (
    _Scenery("flower.jpg", slice(110, 340), slice(190, 430), (0.9, 0.5, 0.3), (1.0, 0.9, 0.8)),
    _Scenery("china.jpg", slice(100, 380), slice(80, 330), (0.0, 0.0, 0.1), (0.6, 0.3, 0.3)),
    _Scenery("china.jpg", slice(270, 427), slice(330, 640), (0.6, 0.8, 0.5), (1.0, 1.0, 0.8)),
    _Scenery("flower.jpg", slice(0, 427), slice(0, 170), (0.0, 0.0, 0.1), (0.0, 0.4, 0.4)),
    _Scenery("china.jpg", slice(0, 330), slice(340, 540), (0.5, 0.6, 0.8), (0.8, 0.9, 1.0)),
)


class PolyDigits(NamedTuple):
    """The two splits of PolyDigits, and the sources of their images.

    Attributes:
      train: modalities ``m0``, ``m1``, ... ``[n, 16, 16, 3]`` from 0 to 1; with text also ``word``
        ``[n, 8, 71]``; labels 0 to 9.
      test: the same modalities, for one pairing of digits that are not in ``train``.
      train_sources: row of the digit in scikit-learn's data set, ``[n]`` by image modality.
      test_sources: rows of the digits of the test split.
    """

    train: MultimodalArrays
    test: MultimodalArrays
    train_sources: dict[str, Int[np.ndarray, " n"]]
    test_sources: dict[str, Int[np.ndarray, " n"]]


def polydigits(
    num_modalities: int = 3, *, num_pairings: int = 10, text: bool = False, seed: int = 0
) -> PolyDigits:
    """Returns PolyDigits, made in about a second from files of scikit-learn.

    80% of the digits of each class are in the training split, the same for every seed. A pairing
    shuffles the digits of every class, independently for each modality, and draws a piece of
    photograph for each digit. The training split holds ``num_pairings`` pairings in a row.

    Args:
      num_modalities: 2 to 5 images per example, named ``m0``, ``m1``, ...
      num_pairings: number of times that each modality uses every training digit.
      text: True to add the digit's name as modality ``word``, see ``encode_words``.
      seed: seed of pairings, pieces of photograph and positions of words. Modalities do not depend
        on ``num_modalities``, nor does the test split on ``num_pairings``.

    Raises:
      ValueError: if an argument is out of range.
      ImportError: if scikit-learn or Pillow is missing.

    >>> from mmvae_jax.data import polydigits
    >>> digits = polydigits(num_modalities=2, num_pairings=1)
    >>> digits.train.data["m0"].shape[1:]
    (16, 16, 3)
    """
    if not 2 <= num_modalities <= MAX_MODALITIES:
        raise ValueError(f"num_modalities is {num_modalities}: give 2 to {MAX_MODALITIES}")
    num_pairings = check_at_least("num_pairings", num_pairings, 1)
    seed = check_at_least("seed", seed, 0)
    digits, classes = _load_digits()
    sceneries = {f"m{m}": _load_scenery(_SCENERIES[m]) for m in range(num_modalities)}
    train_rows, test_rows = _split(classes)

    def build(
        rows: Int[np.ndarray, " r"], num_pairings: int, split: int
    ) -> tuple[MultimodalArrays, dict[str, np.ndarray]]:
        labels = np.tile(classes[rows], num_pairings)
        data, sources = {}, {}
        for m, (name, scenery) in enumerate(sceneries.items()):
            rng = np.random.default_rng((seed, split, m))
            sources[name] = rows[_pair(classes[rows], num_pairings, rng)]
            data[name] = _invert(_crops(scenery, len(labels), rng), digits[sources[name]])
        if text:
            rng = np.random.default_rng((seed, split, MAX_MODALITIES))
            data["word"] = encode_words(labels, rng)
        return MultimodalArrays(data, labels), sources

    train, train_sources = build(train_rows, num_pairings, _TRAIN)
    test, test_sources = build(test_rows, 1, _TEST)
    return PolyDigits(train, test, train_sources, test_sources)


def _load_digits() -> tuple[Float[np.ndarray, "row 16 16"], Int[np.ndarray, " row"]]:
    """Returns the digits as opacities from 0 to 1, enlarged from 8 x 8 by splines, and classes."""
    try:
        from scipy import ndimage
        from sklearn import datasets
    except ImportError as error:
        raise _missing_extra() from error
    pixels, classes = map(np.asarray, datasets.load_digits(return_X_y=True))
    opacity = pixels.reshape(-1, 8, 8) / 16  # Pixels count inked points of 4 x 4.
    enlarged = ndimage.zoom(opacity, (1, 2, 2), order=3, mode="nearest", grid_mode=True)
    return np.clip(np.asarray(enlarged, np.float32), 0, 1), classes.astype(np.int32)


def _load_scenery(scenery: _Scenery) -> Float[np.ndarray, "height width 3"]:
    """Returns a part of a photograph, made smaller and recoloured."""
    try:
        from sklearn import datasets

        photo = datasets.load_sample_image(scenery.photo)
    except ImportError as error:
        raise _missing_extra() from error
    region = photo[scenery.rows, scenery.columns].astype(np.float32)
    # Means over 3 x 3 pixels, so that a piece of 16 x 16 shows more than one flat colour.
    height, width = (side // 3 for side in region.shape[:2])
    region = region[: 3 * height, : 3 * width].reshape(height, 3, width, 3, 3).mean(axis=(1, 3))
    low, high = np.percentile(region, [2, 98], axis=(0, 1)).astype(np.float32)
    darkest, brightest = np.array([scenery.darkest, scenery.brightest], np.float32)
    return darkest + (brightest - darkest) * np.clip((region - low) / (high - low), 0, 1)


def _missing_extra() -> ImportError:
    return ImportError(
        "PolyDigits is made from files of scikit-learn and read with Pillow: "
        "pip install 'mmvae_jax[experiments]'"
    )


def _split(
    classes: Int[np.ndarray, " row"],
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Returns the rows of the training and the test split, drawn class by class."""
    rng = np.random.default_rng(0)
    per_class = [rng.permutation(np.flatnonzero(classes == c)) for c in range(len(WORDS))]
    num_test = [round(_TEST_SHARE * len(rows)) for rows in per_class]
    test = [rows[:n] for rows, n in zip(per_class, num_test, strict=True)]
    train = [rows[n:] for rows, n in zip(per_class, num_test, strict=True)]
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


def _pair(
    labels: Int[np.ndarray, " r"], num_pairings: int, rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """Returns one permutation of the rows per pairing; every row keeps its class."""
    slots = np.argsort(labels, kind="stable")
    shuffled = np.argsort(labels + rng.random((num_pairings, len(labels))), axis=-1)
    pairing = np.empty_like(shuffled)
    pairing[:, slots] = shuffled
    return pairing.reshape(-1)


def _crops(
    scenery: Float[np.ndarray, "height width 3"], num_crops: int, rng: np.random.Generator
) -> Float[np.ndarray, "n 16 16 3"]:
    """Returns pieces of a photograph at random positions."""
    shape = (IMAGE_SIZE, IMAGE_SIZE)
    windows = np.lib.stride_tricks.sliding_window_view(scenery, shape, axis=(0, 1))
    tops, lefts = (rng.integers(side, size=num_crops) for side in windows.shape[:2])
    return windows[tops, lefts].transpose(0, 2, 3, 1)


def _invert(
    background: Float[np.ndarray, "n 16 16 3"], opacity: Float[np.ndarray, "n 16 16"]
) -> Float[np.ndarray, "n 16 16 3"]:
    """Returns the background with its colours inverted in proportion to the digit's opacity."""
    return background + opacity[..., None] * (1 - 2 * background)
