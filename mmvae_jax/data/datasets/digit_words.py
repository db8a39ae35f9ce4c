"""English names of digits as one-hot characters, the text modality of digit data sets."""

import numpy as np
from jaxtyping import Float, Int

from mmvae_jax.data.columns import IndexedColumn

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORD_LENGTH = 8
#: The 71 characters of the MNIST-SVHN-Text benchmarks, the space first.
ALPHABET = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?-'"


def encode_words(
    labels: Int[np.ndarray, " n"], rng: np.random.Generator
) -> Float[np.ndarray, "n position character"]:
    """Returns the names of digits, one-hot over ``ALPHABET``, ``[n, 8, 71]``.

    A word of ``l`` letters starts at any of the positions ``0, ..., 8 - l``. Spaces fill the rest.

    Args:
      labels: digits, 0 to 9.
      rng: source of the positions.
    """
    lengths = np.array([len(word) for word in WORDS])
    padded = np.array([[ALPHABET.index(c) for c in word.ljust(WORD_LENGTH)] for word in WORDS])
    offsets = rng.integers(WORD_LENGTH - lengths[labels] + 1)
    # Rotating the padded text by the offset only moves spaces to the front, because there are at
    # least as many of them.
    positions = (np.arange(WORD_LENGTH) - offsets[:, None]) % WORD_LENGTH
    codes = padded[labels[:, None], positions]
    return np.eye(len(ALPHABET), dtype=np.float32)[codes]


def digit_words(labels: Int[np.ndarray, " n"], rng: np.random.Generator) -> IndexedColumn:
    """Returns the names of digits as in MNIST-SVHN-Text, one-hot over ``ALPHABET``, ``[n, 8, 71]``.

    A word of ``l`` letters starts at any of the positions ``0, ..., 7 - l``, and spaces fill the
    rest. The last character is therefore always a space, as in the code of Sutter et al. (2020).
    Their code draws a position whenever an example is read; this function draws it once. Each
    distinct text is in memory once.

    Args:
      labels: digits, 0 to 9.
      rng: source of the positions.

    >>> from mmvae_jax.data import digit_words
    >>> digit_words(np.array([3, 7]), np.random.default_rng(0)).shape
    (2, 8, 71)
    """
    num_places = np.array([WORD_LENGTH - len(word) for word in WORDS])
    texts = [
        (" " * place + word).ljust(WORD_LENGTH)
        for word, num in zip(WORDS, num_places, strict=True)
        for place in range(num)
    ]
    codes = np.array([[ALPHABET.index(character) for character in text] for text in texts])
    one_hot = np.eye(len(ALPHABET), dtype=np.float32)[codes]
    first = np.cumsum(num_places) - num_places
    return IndexedColumn(one_hot, first[labels] + rng.integers(num_places[labels]))


def decode_words(one_hot: Float[np.ndarray, "n position character"]) -> list[str]:
    """Returns the texts of one-hot codes, probabilities or logits, without padding.

    >>> from mmvae_jax.data import decode_words, digit_words
    >>> decode_words(digit_words(np.array([3, 7]), np.random.default_rng(0))[:])
    ['three', 'seven']
    """
    codes = one_hot.argmax(axis=-1)
    return ["".join(ALPHABET[code] for code in row).strip() for row in codes]
