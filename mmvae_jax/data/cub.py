"""CUB image-captions: birds, and ten sentences about each (Shi et al., 2019)."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data.files import Folder, locate_folder
from mmvae_jax.data.pairing import Rows

CAPTIONS_PER_IMAGE = 10
#: The first words of every vocabulary: `PAD` fills a caption up, `EOS` ends it, `EXCLUDED` stands
#: for a word that is not in the vocabulary.
SPECIAL = ("<pad>", "<eos>", "<exc>")
PAD, EOS, EXCLUDED = range(3)

_CAPTIONS = {"train": "text_trainvalclasses.txt", "test": "text_testclasses.txt"}
_SOURCE = "unzip http://www.robots.ox.ac.uk/~yshi/mmdgm/datasets/cub.zip, which holds a folder cub"
# A clitic such as 's is a word, and so is what hyphens join.
_WORD = re.compile(r"'\w+|\w+(?:-\w+)*|[^\w\s]")


class CUB(NamedTuple):
    """The two splits, which share neither an image nor a species, and the words of the captions.

    Attributes:
      train: ``image`` ``[n, 64, 64, 3]`` bytes and ``caption`` ``[n, 32]`` classes; the species, 0
        to 199, as label. Rows ``10 i, ..., 10 i + 9`` show the same image, which is in memory once.
      test: the same.
      vocabulary: word of every class of ``caption``, those of ``SPECIAL`` first.
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
    """Returns the CUB image-caption data set, decoded and made smaller when it is read.

    Differs from the code of Shi et al. where that is at odds with itself: padding is class 0, which
    is what their embedding leaves out (they pad with 1, and 0 is their ``<exc>``); a line is a
    caption, even if it has two sentences (they cut the file into sentences, so that captions and
    images part company). Words are split by a regular expression instead of NLTK.

    Args:
      data_dir: folder with ``cub/train/<number>.<species>/*.jpg``, ``cub/test``,
        ``cub/text_trainvalclasses.txt`` and ``cub/text_testclasses.txt``, ten lines for each image
        in the order of their sorted paths. See ``files.data_folder``; nothing is downloaded, for
        no checksum is published.
      image_size: height and width, to which images are stretched.
      caption_length: words of a caption with its ``<eos>``; longer ones are cut.
      min_count: words seen more often than this in training are in the vocabulary.

    Raises:
      FileNotFoundError: if a folder or file is missing.
      ValueError: if an image is unreadable, is in both splits, or lacks its ten captions, or for
        a size that is too small.
      ImportError: if Pillow is missing.

    >>> birds = cub("datasets", image_size=32)  # doctest: +SKIP
    """
    smallest = {"image_size": (image_size, 1), "caption_length": (caption_length, 2)}
    for field, (value, least) in smallest.items():
        if value < least:
            raise ValueError(f"{field}={value}: choose {least} or more")
    root = _locate(data_dir)
    files = {split: sorted((root / split).glob("*/*.jpg")) for split in _CAPTIONS}
    lines = {split: _read_lines(root / name) for split, name in _CAPTIONS.items()}
    _check(root, files, lines)
    vocabulary = build_vocabulary(lines["train"], min_count)

    def load(split: str) -> MultimodalArrays:
        repeated = np.repeat(np.arange(len(files[split]), dtype=np.int32), CAPTIONS_PER_IMAGE)
        species = np.array([_species(file) for file in files[split]], np.int32)
        data = {
            "image": Rows(_read_images(files[split], image_size), repeated),
            "caption": encode_captions(lines[split], vocabulary, caption_length),
        }
        return MultimodalArrays(data, species[repeated])

    return CUB(load("train"), load("test"), vocabulary)


def cub_vocabulary(data_dir: Folder | None = None, *, min_count: int = 3) -> tuple[str, ...]:
    """Returns the vocabulary that ``cub`` finds, without reading an image.

    Raises:
      FileNotFoundError: if the captions are missing.

    >>> words = cub_vocabulary("datasets")  # doctest: +SKIP
    """
    return build_vocabulary(_read_lines(_locate(data_dir) / _CAPTIONS["train"]), min_count)


def split_words(caption: str) -> list[str]:
    """Returns the words and punctuation marks of a caption.

    >>> split_words("this bird's long-tailed, black.")
    ['this', 'bird', "'s", 'long-tailed', ',', 'black', '.']
    """
    return _WORD.findall(caption)


def build_vocabulary(captions: Iterable[str], min_count: int = 3) -> tuple[str, ...]:
    """Returns ``SPECIAL`` and the words seen more than ``min_count`` times, first seen first.

    >>> build_vocabulary(["a red bird", "a red beak"], min_count=1)[len(SPECIAL):]
    ('a', 'red')
    """
    counts = Counter(word for caption in captions for word in split_words(caption))
    return (*SPECIAL, *(word for word, count in counts.items() if count > min_count))


def encode_captions(
    captions: Sequence[str], vocabulary: Sequence[str], length: int = 32
) -> Int[np.ndarray, "n position"]:
    """Returns the class of every word: at most ``length - 1`` words, ``<eos>``, and padding."""
    classes = {word: i for i, word in enumerate(vocabulary)}
    codes = np.full((len(captions), length), PAD, np.int32)
    for row, caption in zip(codes, captions, strict=True):
        words = split_words(caption)[: length - 1]
        row[: len(words) + 1] = [*(classes.get(word, EXCLUDED) for word in words), EOS]
    return codes


def decode_captions(codes: Int[np.ndarray, "n position"], vocabulary: Sequence[str]) -> list[str]:
    """Returns the words before ``<eos>``, joined by spaces, without padding.

    >>> words = (*SPECIAL, "a", "bird")
    >>> decode_captions(encode_captions(["a blue bird"], words, 6), words)
    ['a <exc> bird']
    """
    texts = ([vocabulary[int(code)] for code in row[: _end(row)] if code != PAD] for row in codes)
    return [" ".join(text) for text in texts]


def _locate(data_dir: Folder | None) -> Path:
    return locate_folder("CUB", ("cub",), data_dir=data_dir, source=_SOURCE)


def _read_lines(file: Path) -> list[str]:
    # Not splitlines, which also ends a line at rarer characters.
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
                f"{root / _CAPTIONS[split]} has {len(lines[split])} lines for {len(paths)} images, "
                f"expected {expected}: give {CAPTIONS_PER_IMAGE} captions to each, one a line"
            )
    names = {split: {path.name for path in paths} for split, paths in files.items()}
    shared = sorted(names["train"] & names["test"])
    if shared:
        raise ValueError(
            f"{root} has {len(shared)} images in both train and test, one is {shared[0]}: an image "
            "with all its captions belongs to one split"
        )


def _species(file: Path) -> int:
    """Number of the folder's species, ``002.Laysan_Albatross`` being 1."""
    number = file.parent.name.partition(".")[0]
    if not number.isdecimal() or number == "0":
        raise ValueError(
            f"{file.parent} names no species: name folders like 002.Laysan_Albatross, from 001 on"
        )
    return int(number) - 1


def _read_images(files: Sequence[Path], size: int) -> UInt8[np.ndarray, "n size size 3"]:
    images = np.empty((len(files), size, size, 3), np.uint8)

    def read(row: int) -> None:
        images[row] = _read_image(files[row], size)

    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock.
        list(pool.map(read, range(len(files))))
    return images


def _read_image(file: Path, size: int) -> UInt8[np.ndarray, "size size 3"]:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("CUB's images are read with Pillow: pip install pillow") from error
    try:
        with Image.open(file) as image:
            resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except OSError as error:
        raise ValueError(f"{file} is no readable image: unpack it again ({error})") from error
    return np.asarray(resized)
