"""MNIST-SVHN, and MNIST-SVHN-Text: the same digit in two pictures and in a word."""

import numpy as np
from jaxtyping import Float, Int

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data.files import Folder, Splits
from mmvae_jax.data.mnist import mnist
from mmvae_jax.data.pairing import Rows, pair_by_label
from mmvae_jax.data.polydigits import ALPHABET, WORD_LENGTH, WORDS
from mmvae_jax.data.svhn import svhn

_TRAIN, _TEST = 0, 1


def mnist_svhn(
    data_dir: Folder | None = None,
    *,
    num_pairings: int = 30,
    text: bool = False,
    seed: int = 0,
    max_per_class: int = 10_000,
) -> Splits:
    """Returns MNIST-SVHN (Shi et al., 2019), with text MNIST-SVHN-Text (Sutter et al., 2020).

    The pairs are those of ``pairing.pair_by_label``, 56,068 and 10,000 a pairing; a pairing shows
    every MNIST digit once, or every one of SVHN where a class has fewer of them. The images are
    in memory once, however many pairings there are; ``pairing.pairs_digest`` tells whether two runs
    had the same ones.

    Args:
      data_dir: folder of both data sets, see ``mnist.mnist`` and ``svhn.svhn``.
      num_pairings: 30 in the script of Shi et al., 20 in the text of their repository and in
        the code of Sutter et al.
      text: adds the digit's name, see ``digit_words``.
      seed: of the pairs and the places of the words; the pairs do not depend on ``text``.
      max_per_class: digits of a class that are used.

    Returns:
      Modalities ``mnist`` ``[n, 28, 28, 1]`` and ``svhn`` ``[n, 32, 32, 3]``, bytes, with text also
      ``text`` ``[n, 8, 71]``, one-hot; labels 0 to 9.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a file is damaged or an argument is out of range.

    >>> pairs = mnist_svhn("datasets", num_pairings=30, text=True)  # doctest: +SKIP
    """
    if seed < 0:
        raise ValueError(f"seed={seed}: choose a non-negative integer")
    digits, numbers = mnist(data_dir), svhn(data_dir)

    def pair(split: int) -> MultimodalArrays:
        sources = {"mnist": digits[split], "svhn": numbers[split]}
        labels = {name: np.asarray(source.labels) for name, source in sources.items()}
        rows = pair_by_label(labels, num_pairings, seed=(seed, split), max_per_class=max_per_class)
        shared = labels["mnist"][rows["mnist"]]
        data = {name: Rows(source.data["image"], rows[name]) for name, source in sources.items()}
        if text:
            data["text"] = digit_words(shared, np.random.default_rng((seed, split, 2)))
        return MultimodalArrays(data, shared)

    return Splits(pair(_TRAIN), pair(_TEST))


def digit_words(labels: Int[np.ndarray, " n"], rng: np.random.Generator) -> Rows:
    """Returns the English names of digits, one-hot over ``polydigits.ALPHABET``, ``[n, 8, 71]``.

    A word of ``l`` letters starts at any of the places ``0, ..., 7 - l``, and spaces fill the
    others, as in the code of Sutter et al. (2020): the last of the eight is always a space. They
    draw the place whenever an example is read, here it is drawn once. Each text is in memory once.

    >>> digit_words(np.array([3, 7]), np.random.default_rng(0)).shape
    (2, 8, 71)
    """
    num_places = np.array([WORD_LENGTH - len(word) for word in WORDS])
    texts = [
        (" " * place + word).ljust(WORD_LENGTH)
        for word, num in zip(WORDS, num_places, strict=True)
        for place in range(num)
    ]
    first = np.cumsum(num_places) - num_places
    return Rows(_one_hot(texts), first[labels] + rng.integers(num_places[labels]))


def _one_hot(texts: list[str]) -> Float[np.ndarray, "n position character"]:
    codes = np.array([[ALPHABET.index(character) for character in text] for text in texts])
    return np.eye(len(ALPHABET), dtype=np.float32)[codes]
