"""MNIST and Fashion-MNIST, from the official idx files."""

import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data.arrays import num_examples
from mmvae_jax.data.datasets.files import Folder, PublishedFile, Splits, locate

_IMAGES = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}
_LABELS = {"train": "train-labels-idx1-ubyte.gz", "test": "t10k-labels-idx1-ubyte.gz"}

_MNIST_SITES = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
_FASHION_SITES = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
_FASHION_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}


def mnist(data_dir: Folder | None = None) -> Splits:
    """Returns MNIST (LeCun, Cortes and Burges, 1998): 60,000 and 10,000 digits.

    Args:
      data_dir: folder with ``mnist/train-images-idx3-ubyte.gz`` and the three other files, packed
        or unpacked; ``MNIST/raw`` and the folder itself are searched, too. If None, the folder that
        the environment variable ``MMVAE_DATA`` names; without one, the files are downloaded.

    Returns:
      Modality ``image``, bytes ``[n, 28, 28, 1]``; labels 0 to 9.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a file is damaged or holds something else.

    >>> from mmvae_jax.data import mnist
    >>> train, test = mnist("datasets")  # doctest: +SKIP
    """
    return _splits(("mnist/", "MNIST/raw/", ""), _MNIST_SITES, _MNIST_MD5, data_dir)


def fashion_mnist(data_dir: Folder | None = None) -> Splits:
    """Returns Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 60,000 and 10,000 garments.

    Args:
      data_dir: folder with ``fashion_mnist/train-images-idx3-ubyte.gz`` and the three other files,
        packed or unpacked; ``FashionMNIST/raw`` is searched, too, but no other place, because the
        files of MNIST have the same names. If None, as for ``mnist``.

    Returns:
      Modality ``image``, bytes ``[n, 28, 28, 1]``; labels 0 to 9.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a file is damaged or holds something else.

    >>> from mmvae_jax.data import fashion_mnist
    >>> train, test = fashion_mnist("datasets")  # doctest: +SKIP
    """
    places = ("fashion_mnist/", "FashionMNIST/raw/")
    return _splits(places, _FASHION_SITES, _FASHION_MD5, data_dir)


def read_idx(file: Path) -> UInt8[np.ndarray, "..."]:
    """Returns the array of an idx file, compressed with gzip or not.

    The file consists of the bytes ``0 0 8 num_axes`` (8 is the type unsigned byte), one big-endian
    32-bit size per axis, and the values.

    Raises:
      ValueError: if the file is damaged, or of another format or type.
    """
    content = file.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{file} is a damaged gzip file: download it again") from error
    start = 4 + 4 * content[3] if len(content) > 3 else 4
    if content[:3] != b"\0\0\x08" or len(content) < start:
        raise ValueError(
            f"{file} begins with {content[:4].hex(' ') or 'nothing'}: give an idx file of unsigned "
            "bytes, which begins with 00 00 08 and the number of axes"
        )
    shape = tuple(np.frombuffer(content, ">u4", content[3], offset=4).tolist())
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"{file} holds {len(content) - start} bytes of values, expected {math.prod(shape)} "
            f"for its shape {shape}: download it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _splits(
    places: Sequence[str], sites: Sequence[str], md5: Mapping[str, str], data_dir: Folder | None
) -> Splits:
    """Returns both splits, from files in one of the places or published at one of the sites."""

    def read(names: Mapping[str, str], split: str, num_axes: int) -> np.ndarray:
        name = names[split]
        first, *others = (place + name for place in places)
        urls, checksum = tuple(site + name for site in sites), f"md5:{md5[name]}"
        published = PublishedFile(path=first, others=tuple(others), urls=urls, checksum=checksum)
        file = locate(published, data_dir)
        values = read_idx(file)
        if values.ndim != num_axes:
            raise ValueError(
                f"{file} has {values.ndim} axes, expected {num_axes}: put images (three axes) and "
                "labels (one) into their own files"
            )
        return values

    def load(split: str) -> MultimodalArrays:
        images, labels = read(_IMAGES, split, 3), read(_LABELS, split, 1)
        dataset = MultimodalArrays({"image": images[..., None]}, labels.astype(np.int32))
        num_examples(dataset)  # Refuses different numbers of images and labels.
        return dataset

    return Splits(load("train"), load("test"))
