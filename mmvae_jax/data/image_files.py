"""Images in files, as a column of a data set."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from mmvae_jax.data.columns import LazyColumn

#: Pillow's modes of at most eight bits a channel, and the grey or colour mode that keeps all bits.
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}


class ImageFiles(LazyColumn):
    """A column of image files of one size, decoded by Pillow to bytes, channels last.

    Row ``i`` is file ``i``. Grey files have one channel; files in colour or with a palette have
    three. Each read decodes its files anew, in the calling thread (that of ``prefetch_to_device``).

    Args:
      files: paths of the images, one per example.
      shape: height, width and channels of every image; read from the first file if left out.

    Raises:
      ValueError: if there is no file. Reading raises it if a file is damaged, has another size or
        number of channels, more than eight bits a channel, or transparency.
      ImportError: if Pillow is missing.

    >>> from pathlib import Path
    >>> column = ImageFiles(sorted(Path("photos").glob("*.png")))  # doctest: +SKIP
    """

    def __init__(
        self, files: Sequence[str | os.PathLike[str]], shape: tuple[int, int, int] | None = None
    ):
        if isinstance(files, str | os.PathLike) or not files:
            raise ValueError(
                f"files is {files!r}: give the path of every image, sorted(folder.glob('*.png'))"
            )
        self.files = [os.path.abspath(file) for file in files]
        image_shape = _decode(self.files[0]).shape if shape is None else tuple(shape)
        self.shape = (len(self.files), *image_shape)
        self.dtype = np.dtype(np.uint8)

    def _read(self, rows: Integer[np.ndarray, " b"]) -> UInt8[np.ndarray, "b h w c"]:
        images = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for image, row in zip(images, rows, strict=True):
            image[:] = self._checked(self.files[row])
        return images

    def _checked(self, file: str) -> UInt8[np.ndarray, "h w c"]:
        """Returns a decoded image of the column's shape."""
        image, expected = _decode(file), self.shape[1:]
        if image.shape != expected:
            raise ValueError(
                f"{file} has height, width and channels {image.shape}, expected {expected}: "
                "resize or convert it, or make another column for images of another shape"
            )
        return image


def _decode(file: str) -> UInt8[np.ndarray, "h w c"]:
    with _pillow().open(file) as image:
        if image.mode not in _MODES:
            raise ValueError(
                f"{file} has Pillow's mode {image.mode!r}, expected one of {list(_MODES)}: save it "
                "with eight bits a channel, grey or RGB, without transparency"
            )
        try:
            pixels = np.asarray(image.convert(_MODES[image.mode]))
        except (OSError, SyntaxError) as error:  # Pillow's own errors do not name the file.
            raise ValueError(f"{file} is damaged ({error}): restore it") from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("ImageFiles reads with Pillow: pip install pillow") from error
    return Image
