"""SVHN (street view house numbers), from the official MATLAB files."""

import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data.datasets.files import Folder, PublishedFile, Splits, locate

_SITE = "http://ufldl.stanford.edu/housenumbers/"
_MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


def svhn(data_dir: Folder | None = None) -> Splits:
    """Returns the cropped digits of SVHN (Netzer et al., 2011): 73,257 and 26,032 images.

    Args:
      data_dir: folder with ``svhn/train_32x32.mat`` and ``svhn/test_32x32.mat``; ``SVHN`` and the
        folder itself are searched, too. If None, the folder that the environment variable
        ``MMVAE_DATA`` names; without one, the files are downloaded.

    Returns:
      Modality ``image``, bytes ``[n, 32, 32, 3]``; labels 0 to 9.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a file is damaged or holds something else.

    >>> from mmvae_jax.data import svhn
    >>> train, test = svhn("datasets")  # doctest: +SKIP
    """

    def load(name: str) -> MultimodalArrays:
        file = PublishedFile(
            path=f"svhn/{name}",
            others=(f"SVHN/{name}", name),
            urls=(_SITE + name,),
            checksum=f"md5:{_MD5[name]}",
        )
        images, labels = read_mat(locate(file, data_dir))
        return MultimodalArrays({"image": images}, labels)

    return Splits(load("train_32x32.mat"), load("test_32x32.mat"))


def read_mat(file: Path) -> tuple[UInt8[np.ndarray, "n 32 32 3"], Int[np.ndarray, " n"]]:
    """Returns images and digits of a file with ``X [32, 32, 3, n]`` and ``y [n, 1]``.

    The file labels the digit 0 as 10.

    Raises:
      ValueError: if the file is damaged or holds something else.
    """
    # Imported here, because importing scipy.io takes a quarter of a second.
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(file, variable_names=("X", "y"))
    except (ValueError, TypeError, OSError, zlib.error, NotImplementedError, MatReadError) as error:
        raise ValueError(
            f"{file} cannot be read as a MATLAB file: download it again ({error})"
        ) from error
    images, labels = content.get("X"), content.get("y")
    if images is None or labels is None:
        raise ValueError(f"{file} lacks X or y: give one of {list(_MD5)}")
    expected = (32, 32, 3, labels.size)
    if images.shape != expected or images.dtype != np.uint8:
        raise ValueError(
            f"X of {file} is {images.dtype}{list(images.shape)}: give one of {list(_MD5)}, with X "
            f"uint8{list(expected)} for {labels.size} labels"
        )
    if not np.isin(labels, np.arange(1, 11)).all():
        raise ValueError(
            f"y of {file} is {labels.min()} to {labels.max()}: download the file again, whose "
            "labels are 1 to 10 (the digit 0)"
        )
    # In C order, so that the bytes of an example are contiguous.
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.ravel().astype(np.int32) % 10
