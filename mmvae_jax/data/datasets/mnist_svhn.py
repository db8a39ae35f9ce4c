"""MNIST-SVHN and MNIST-SVHN-Text: one digit in two images, and as a word."""

import numpy as np

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_at_least
from mmvae_jax.data.datasets.digit_words import digit_words
from mmvae_jax.data.datasets.files import Folder, Splits
from mmvae_jax.data.datasets.mnist import mnist
from mmvae_jax.data.datasets.svhn import svhn
from mmvae_jax.data.pairing import pair_images

_TRAIN, _TEST = 0, 1


def mnist_svhn(
    data_dir: Folder | None = None,
    *,
    num_pairings: int = 30,
    text: bool = False,
    seed: int = 0,
    max_per_class: int = 10_000,
) -> Splits:
    """Returns MNIST-SVHN (Shi et al., 2019), or MNIST-SVHN-Text (Sutter et al., 2020).

    ``pair_by_label`` makes the pairs: 56,068 to train on and 10,000 to test on per pairing. A
    pairing uses each MNIST digit once, or each SVHN digit where a class has fewer of those. Images
    are in memory once for any number of pairings. ``pairs_digest`` shows if two runs had the same
    pairs.

    Args:
      data_dir: folder of both data sets, as in ``mnist`` and ``svhn``.
      num_pairings: 30 in the script of Shi et al.; 20 in the text of their repository and in the
        code of Sutter et al.
      text: True to add the digit's name as modality ``text``, see ``digit_words``.
      seed: seed of the pairs and of the positions of words; pairs do not depend on ``text``.
      max_per_class: largest number of digits used per class.

    Returns:
      Modalities ``mnist`` ``[n, 28, 28, 1]`` and ``svhn`` ``[n, 32, 32, 3]``, bytes; with text also
      ``text`` ``[n, 8, 71]``, one-hot. Labels are 0 to 9.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a file is damaged or an argument is out of range.

    >>> from mmvae_jax.data import mnist_svhn
    >>> train, test = mnist_svhn("datasets", num_pairings=30, text=True)  # doctest: +SKIP
    """
    seed = check_at_least("seed", seed, 0)
    digits, numbers = mnist(data_dir), svhn(data_dir)

    def pair(split: int) -> MultimodalArrays:
        sources = {"mnist": digits[split], "svhn": numbers[split]}
        pairs = pair_images(sources, num_pairings, seed=(seed, split), max_per_class=max_per_class)
        if text:
            words = digit_words(np.asarray(pairs.labels), np.random.default_rng((seed, split, 2)))
            return MultimodalArrays({**pairs.data, "text": words}, pairs.labels)
        return pairs

    return Splits(pair(_TRAIN), pair(_TEST))
