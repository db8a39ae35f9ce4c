"""CUB image-captions: photographs of birds with ten sentences each (Shi et al., 2019)."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_at_least
from mmvae_jax.data.columns import IndexedColumn
from mmvae_jax.data.datasets.files import Folder, locate_folder

CAPTIONS_PER_IMAGE = 10
#: First words of every vocabulary: padding, end of a caption, and any word outside it.
SPECIAL = ("<pad>", "<eos>", "<exc>")
PAD, EOS, EXCLUDED = range(3)

_CAPTIONS = {"train": "text_trainvalclasses.txt", "test": "text_testclasses.txt"}
_SOURCE = "unzip http://www.robots.ox.ac.uk/~yshi/mmdgm/datasets/cub.zip, which holds a folder cub"
# A clitic such as 's is a word, and a hyphenated compound is one word.
_WORD = re.compile(r"'\w+|\w+(?:-\w+)*|[^\w\s]")


class CUB(NamedTuple):
    """The two splits of CUB, which share no image and no species, and the vocabulary.

    Attributes:
      train: modalities ``image``, bytes ``[n, 64, 64, 3]``, and ``caption``, word classes
        ``[n, 32]``; labels are species, 0 to 199. Rows ``10 i, ..., 10 i + 9`` show one image,
        which is in memory once.
      test: the same modalities, for other species.
      vocabulary: words by class of ``caption``, beginning with ``SPECIAL``.
    """

    train: MultimodalArrays
    test: MultimodalArrays
    vocabulary: tuple[str, ...]


def cub(
    data_dir: Folder | None = None,
    *,
    image_size: int = 64,
    caption_length: int = 32,
    min_count: int = 3,
) -> CUB:
    """Returns CUB image-captions (Shi et al., 2019), decoded and scaled down into memory.

    Differs from the code of Shi et al. in three ways:

    - Padding is class 0, the class that their embedding ignores. They pad with 1, and their 0 is
      ``<exc>``.
    - A line is one caption, even if it has two sentences. They cut files into sentences, which
      shifts captions against images.
    - A regular expression splits words, instead of NLTK.

    Args:
      data_dir: folder with ``cub/train/<number>.<species>/*.jpg``, ``cub/test``,
        ``cub/text_trainvalclasses.txt`` and ``cub/text_testclasses.txt``. The text files hold ten
        lines per image, in the order of the sorted paths. If None, the folder that the environment
        variable ``MMVAE_DATA`` names. Nothing is downloaded, because no checksum is published.
      image_size: height and width that images are resized to.
      caption_length: words of a caption including ``<eos>``; longer captions are cut.
      min_count: number of occurrences in training that a word of the vocabulary exceeds.

    Raises:
      FileNotFoundError: if a folder or file is missing.
      ValueError: if an image is unreadable, is in both splits or lacks its ten captions, or if a
        size is too small.
      ImportError: if Pillow is missing.

    >>> from mmvae_jax.data import cub
    >>> train, test, vocabulary = cub("datasets", image_size=32)  # doctest: +SKIP
    """
    image_size = check_at_least("image_size", image_size, 1)
    caption_length = check_at_least("caption_length", caption_length, 2)
    root = _locate(data_dir)
    files = {split: sorted((root / split).glob("*/*.jpg")) for split in _CAPTIONS}
    lines = {split: _read_lines(root / name) for split, name in _CAPTIONS.items()}
    _check(root, files, lines)
    vocabulary = build_vocabulary(lines["train"], min_count)

    def load(split: str) -> MultimodalArrays:
        repeated = np.repeat(np.arange(len(files[split]), dtype=np.int32), CAPTIONS_PER_IMAGE)
        species = np.array([_species(file) for file in files[split]], np.int32)
        data = {
            "image": IndexedColumn(_read_images(files[split], image_size), repeated),
            "caption": encode_captions(lines[split], vocabulary, caption_length),
        }
        return MultimodalArrays(data, species[repeated])

    return CUB(load("train"), load("test"), vocabulary)


def cub_vocabulary(data_dir: Folder | None = None, *, min_count: int = 3) -> tuple[str, ...]:
    """Returns the vocabulary of ``cub`` without reading images.

    Raises:
      FileNotFoundError: if the captions are missing.

    >>> from mmvae_jax.data import cub_vocabulary
    >>> words = cub_vocabulary("datasets")  # doctest: +SKIP
    """
    return build_vocabulary(_read_lines(_locate(data_dir) / _CAPTIONS["train"]), min_count)


def split_words(caption: str) -> list[str]:
    """Returns the words and punctuation marks of a caption.

    >>> from mmvae_jax.data.datasets.cub import split_words
    >>> split_words("this bird's long-tailed, black.")
    ['this', 'bird', "'s", 'long-tailed', ',', 'black', '.']
    """
    return _WORD.findall(caption)


def build_vocabulary(captions: Iterable[str], min_count: int = 3) -> tuple[str, ...]:
    """Returns ``SPECIAL`` and all words that occur more than ``min_count`` times, in order.

    >>> from mmvae_jax.data.datasets.cub import SPECIAL, build_vocabulary
    >>> build_vocabulary(["a red bird", "a red beak"], min_count=1)[len(SPECIAL):]
    ('a', 'red')
    """
    counts = Counter(word for caption in captions for word in split_words(caption))
    return (*SPECIAL, *(word for word, count in counts.items() if count > min_count))


def encode_captions(
    captions: Sequence[str], vocabulary: Sequence[str], length: int = 32
) -> Int[np.ndarray, "n position"]:
    """Returns word classes ``[n, length]``: up to ``length - 1`` words, ``<eos>`` and padding."""
    classes = {word: i for i, word in enumerate(vocabulary)}
    codes = np.full((len(captions), length), PAD, np.int32)
    for row, caption in zip(codes, captions, strict=True):
        words = split_words(caption)[: length - 1]
        row[: len(words) + 1] = [*(classes.get(word, EXCLUDED) for word in words), EOS]
    return codes


def decode_captions(codes: Int[np.ndarray, "n position"], vocabulary: Sequence[str]) -> list[str]:
    """Returns the words before ``<eos>``, joined by spaces, without padding.

    >>> from mmvae_jax.data.datasets.cub import SPECIAL, decode_captions, encode_captions
    >>> words = (*SPECIAL, "a", "bird")
    >>> decode_captions(encode_captions(["a blue bird"], words, 6), words)
    ['a <exc> bird']
    """
    texts = ([vocabulary[int(code)] for code in row[: _end(row)] if code != PAD] for row in codes)
    return [" ".join(text) for text in texts]


def _locate(data_dir: Folder | None) -> Path:
    return locate_folder("CUB", ("cub",), data_dir=data_dir, source=_SOURCE)


def _read_lines(file: Path) -> list[str]:
    # Not splitlines, which also splits at rarer characters.
    return file.read_text("utf-8").rstrip("\n").split("\n")


def _end(row: Int[np.ndarray, " position"]) -> int:
    ends = np.flatnonzero(row == EOS)
    return int(ends[0]) if ends.size else len(row)


def _check(root: Path, files: dict[str, list[Path]], lines: dict[str, list[str]]) -> None:
    for split, paths in files.items():
        if not paths:
            raise FileNotFoundError(f"{root / split} has no <species>/*.jpg: {_SOURCE}")
        expected = CAPTIONS_PER_IMAGE * len(paths)
        if len(lines[split]) != expected:
            raise ValueError(
                f"{root / _CAPTIONS[split]} has {len(lines[split])} lines for {len(paths)} images: "
                f"give {expected}, one line for each of {CAPTIONS_PER_IMAGE} captions per image"
            )
    names = {split: {path.name for path in paths} for split, paths in files.items()}
    shared = sorted(names["train"] & names["test"])
    if shared:
        raise ValueError(
            f"{root} has {len(shared)} images in both train and test, such as {shared[0]}: put "
            "each image with all its captions into one split"
        )


def _species(file: Path) -> int:
    """Returns the species of an image, 1 for the folder ``002.Laysan_Albatross``."""
    number = file.parent.name.partition(".")[0]
    if not number.isdecimal() or number == "0":
        raise ValueError(
            f"{file.parent} names no species: use folder names such as 002.Laysan_Albatross, "
            "counted from 001"
        )
    return int(number) - 1


def _read_images(files: Sequence[Path], size: int) -> UInt8[np.ndarray, "n size size 3"]:
    images = np.empty((len(files), size, size, 3), np.uint8)

    def read(row: int) -> None:
        images[row] = _read_image(files[row], size)

    with ThreadPoolExecutor() as pool:  # Pillow releases the interpreter's lock.
        list(pool.map(read, range(len(files))))
    return images


def _read_image(file: Path, size: int) -> UInt8[np.ndarray, "size size 3"]:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("images of CUB are read with Pillow: pip install pillow") from error
    try:
        with Image.open(file) as image:
            resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except OSError as error:
        raise ValueError(f"{file} is not a readable image ({error}): unpack it again") from error
    return np.asarray(resized)
