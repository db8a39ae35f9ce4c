"""PolyDigits: real handwritten digits on photographs, several pictures of one class at a time.

A small relative of PolyMNIST (Sutter, Daunhawer and Vogt, 2021, "Generalized multimodal ELBO"),
made from what scikit-learn ships: 1,797 digits of 8x8 pixels and two photographs. The modalities
of an example share the digit's class and nothing else: each shows a different handwriting, on a
different piece of photograph.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmvae_jax.batch import MultimodalArrays

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORD_LENGTH = 8
#: The 71 characters that the text of MNIST-SVHN-Text benchmarks is coded over, the space first.
ALPHABET = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?-'"

IMAGE_SIZE = 16
MAX_MODALITIES = 5
_TEST_SHARE = 0.2
_TRAIN, _TEST = 0, 1


class _Scenery(NamedTuple):
    """A part of a photograph, recoloured from ``darkest`` to ``brightest`` (RGB, 0 to 1).

    Either both colours are dark or both are bright, so that inverting a piece always contrasts
    with it.
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
    """The two splits, and where their pictures come from.

    Attributes:
      train: ``m0``, ``m1``, ... ``[n, 16, 16, 3]`` in 0 to 1; with text ``word [n, 8, 71]``;
      labels.
      test: the same, for one pairing of digits that training never shows.
      train_sources: for every image modality ``[n]``, the row of scikit-learn's digits shown.
      test_sources: the same for the test split.
    """

    train: MultimodalArrays
    test: MultimodalArrays
    train_sources: dict[str, Int[np.ndarray, " n"]]
    test_sources: dict[str, Int[np.ndarray, " n"]]


def polydigits(
    num_modalities: int = 3, *, num_pairings: int = 10, text: bool = False, seed: int = 0
) -> PolyDigits:
    """Returns the PolyDigits data set, built in about a second from files already installed.

    About 80% of each class's digits train and the others test, the same ones for every seed. A
    pairing shuffles, for each modality by itself, the digits of every class and draws a new piece
    of photograph for each; the training split holds ``num_pairings`` of them one after the other.

    Args:
      num_modalities: 2 to 5 images per example, named ``m0``, ``m1``, ...
      num_pairings: how often every training digit is used in each modality.
      text: adds the digit's name as modality ``word``, see ``encode_words``.
      seed: of pairings, photograph pieces and word positions. A modality is the same for every
        ``num_modalities``, and the test split for every ``num_pairings``.

    Raises:
      ValueError: if an argument is out of range.
      ImportError: if scikit-learn or Pillow is missing.

    >>> digits = polydigits(num_modalities=2, num_pairings=1)
    >>> digits.train.data["m0"].shape[1:]
    (16, 16, 3)
    """
    if not 2 <= num_modalities <= MAX_MODALITIES:
        raise ValueError(f"num_modalities={num_modalities}: choose 2 to {MAX_MODALITIES}")
    if num_pairings < 1:
        raise ValueError(f"num_pairings={num_pairings}: choose 1 or more")
    if seed < 0:
        raise ValueError(f"seed={seed}: choose a non-negative integer")
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


def encode_words(
    labels: Int[np.ndarray, " n"], rng: np.random.Generator
) -> Float[np.ndarray, "n position character"]:
    """Returns the English names of digits, one-hot over ``ALPHABET``, ``[n, 8, 71]``.

    A word starts anywhere that leaves room for it in the 8 characters; the others are spaces.
    """
    lengths = np.array([len(word) for word in WORDS])
    padded = np.array([[ALPHABET.index(c) for c in word.ljust(WORD_LENGTH)] for word in WORDS])
    offsets = rng.integers(WORD_LENGTH - lengths[labels] + 1)
    # Padding is at least as long as the offset: turning the text round moves nothing but spaces.
    positions = (np.arange(WORD_LENGTH) - offsets[:, None]) % WORD_LENGTH
    codes = padded[labels[:, None], positions]
    return np.eye(len(ALPHABET), dtype=np.float32)[codes]


def decode_words(one_hot: Float[np.ndarray, "n position character"]) -> list[str]:
    """Returns the text that one-hot codes, probabilities or logits stand for, without padding.

    >>> decode_words(encode_words(np.array([3, 7]), np.random.default_rng(0)))
    ['three', 'seven']
    """
    codes = one_hot.argmax(axis=-1)
    return ["".join(ALPHABET[code] for code in row).strip() for row in codes]


def _load_digits() -> tuple[Float[np.ndarray, "row 16 16"], Int[np.ndarray, " row"]]:
    """Returns the digits as opacities in 0 to 1, smoothly enlarged from 8x8, and their classes."""
    try:
        from scipy import ndimage
        from sklearn import datasets
    except ImportError as error:
        raise _missing_extra() from error
    pixels, classes = map(np.asarray, datasets.load_digits(return_X_y=True))
    opacity = pixels.reshape(-1, 8, 8) / 16  # A pixel counts the inked ones among 4x4.
    enlarged = ndimage.zoom(opacity, (1, 2, 2), order=3, mode="nearest", grid_mode=True)
    return np.clip(np.asarray(enlarged, np.float32), 0, 1), classes.astype(np.int32)


def _load_scenery(scenery: _Scenery) -> Float[np.ndarray, "height width 3"]:
    try:
        from sklearn import datasets

        photo = datasets.load_sample_image(scenery.photo)
    except ImportError as error:
        raise _missing_extra() from error
    region = photo[scenery.rows, scenery.columns].astype(np.float32)
    # Three photograph pixels to one: a piece of 16 pixels then shows more than one flat colour.
    height, width = (side // 3 for side in region.shape[:2])
    region = region[: 3 * height, : 3 * width].reshape(height, 3, width, 3, 3).mean(axis=(1, 3))
    low, high = np.percentile(region, [2, 98], axis=(0, 1)).astype(np.float32)
    darkest, brightest = np.array([scenery.darkest, scenery.brightest], np.float32)
    return darkest + (brightest - darkest) * np.clip((region - low) / (high - low), 0, 1)


def _missing_extra() -> ImportError:
    return ImportError(
        "PolyDigits is made from scikit-learn's files and read with Pillow: "
        "pip install 'mmvae_jax[experiments]'"
    )


def _split(
    classes: Int[np.ndarray, " row"],
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Returns the rows that train and the rows that test, drawn once for every class."""
    rng = np.random.default_rng(0)
    per_class = [rng.permutation(np.flatnonzero(classes == c)) for c in range(len(WORDS))]
    num_test = [round(_TEST_SHARE * len(rows)) for rows in per_class]
    test = [rows[:n] for rows, n in zip(per_class, num_test, strict=True)]
    train = [rows[n:] for rows, n in zip(per_class, num_test, strict=True)]
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


def _pair(
    labels: Int[np.ndarray, " r"], num_pairings: int, rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """Returns, per pairing, a permutation of the rows that keeps every row's class."""
    slots = np.argsort(labels, kind="stable")
    shuffled = np.argsort(labels + rng.random((num_pairings, len(labels))), axis=-1)
    pairing = np.empty_like(shuffled)
    pairing[:, slots] = shuffled
    return pairing.reshape(-1)


def _crops(
    scenery: Float[np.ndarray, "height width 3"], num_crops: int, rng: np.random.Generator
) -> Float[np.ndarray, "n 16 16 3"]:
    shape = (IMAGE_SIZE, IMAGE_SIZE)
    windows = np.lib.stride_tricks.sliding_window_view(scenery, shape, axis=(0, 1))
    tops, lefts = (rng.integers(side, size=num_crops) for side in windows.shape[:2])
    return windows[tops, lefts].transpose(0, 2, 3, 1)


def _invert(
    background: Float[np.ndarray, "n 16 16 3"], opacity: Float[np.ndarray, "n 16 16"]
) -> Float[np.ndarray, "n 16 16 3"]:
    """Returns the background with its colours inverted as far as the digit covers them."""
    return background + opacity[..., None] * (1 - 2 * background)
