"""SVHN, street view house numbers, read from the official MATLAB files."""

import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data.files import Folder, PublishedFile, Splits, locate

_SITE = "http://ufldl.stanford.edu/housenumbers/"
_MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


def svhn(data_dir: Folder | None = None) -> Splits:
    """Returns SVHN's cropped digits (Netzer et al., 2011): 73,257 and 26,032 of them.

    Args:
      data_dir: folder with ``svhn/train_32x32.mat`` and ``svhn/test_32x32.mat``, which may also lie
        in ``SVHN`` or directly in it; see ``files.locate``.

    Returns:
      Modality ``image``, bytes ``[n, 32, 32, 3]``; labels 0 to 9.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a file is damaged or holds something else.

    >>> houses = svhn("datasets").train  # doctest: +SKIP
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
    """Returns the images and digits of a file that holds ``X [32, 32, 3, n]`` and ``y [n, 1]``.

    The digit 0 has label 10 in the file.

    Raises:
      ValueError: if the file is damaged or holds something else.
    """
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
            f"{file} has X of {images.dtype}{list(images.shape)}, expected uint8{list(expected)} "
            f"for its {labels.size} labels: give one of {list(_MD5)}"
        )
    if not np.isin(labels, np.arange(1, 11)).all():
        raise ValueError(
            f"{file} has labels from {labels.min()} to {labels.max()}, expected 1 to 10, which is "
            "the digit 0: download it again"
        )
    # In C order, so that an example lies in one piece.
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.ravel().astype(np.int32) % 10
