"""Columns: one value per example, wherever the values lie, read a whole batch at a time."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Shaped, UInt8

if TYPE_CHECKING:
    import h5py


@runtime_checkable
class Column(Protocol):
    """What ``MultimodalArrays`` needs of the values of a modality.

    A numpy array is a column, and so is a file that ``np.load(file, mmap_mode="r")`` maps into
    memory, of which a batch reads its own rows alone. ``HDF5Array`` and ``ImageFiles`` are others.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``(n, *dim)``."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values, which reading keeps."""
        ...

    @property
    def ndim(self) -> int:
        """Number of axes."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Returns the values ``[b, *dim]`` of a vector of rows, in any order, or of a slice."""
        ...


class FileColumn(ABC):
    """A column in files: what ``HDF5Array`` and ``ImageFiles`` share.

    Attributes:
      shape: ``(n, *dim)``.
      dtype: of the values.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray | slice) -> Shaped[np.ndarray, "b ..."]:
        """Returns the values of these rows ``[b]``, read from the files, in the order asked for.

        Raises:
          IndexError: if a row is not one of ``-n, ..., n - 1``.
          ValueError: if the rows are no vector of integers.
        """
        size = len(self)
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(size))
        rows = np.asarray(rows)
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise ValueError(
                f"rows are {rows.dtype}{list(rows.shape)}: give a slice or a vector of integers "
                "(np.flatnonzero(mask) for those of a mask)"
            )
        rows = rows.astype(np.int64)  # A small or unsigned type may not hold -size.
        outside = rows[(rows < -size) | (rows >= size)]
        if outside.size:
            raise IndexError(f"row {outside[0]} is out of range: there are {size} rows")
        if not rows.size:
            return np.empty((0, *self.shape[1:]), self.dtype)
        return self._read(rows % size)

    @abstractmethod
    def _read(self, rows: Int[np.ndarray, " b"]) -> Shaped[np.ndarray, "b ..."]:
        """Returns the values of one row or more from ``0, ..., n - 1``, possibly repeated."""


class HDF5Array(FileColumn):
    """One data set of an HDF5 file, read with h5py.

    The file is opened by the first read in each process, so that an array can be pickled and used
    in others; h5py's global lock makes reads safe in, and serial between, the threads of one.
    Rows that follow each other are read at once. A random row costs a read, or all of its chunk
    where the file is compressed: store one example, or few, per chunk.

    Args:
      file: path of the file.
      name: of the data set in it, such as "train/images"; its first axis is the example.

    Raises:
      ValueError: if the file has no such data set, or if it is a scalar.
      FileNotFoundError: if there is no such file.
      ImportError: if h5py is missing.
    """

    def __init__(self, file: str | os.PathLike[str], name: str):
        self.file = Path(file).absolute()  # A process with another working directory finds it.
        self.name = name
        self._opened: tuple[int, h5py.Dataset] | None = None
        self.shape, self.dtype = self._describe()

    def __repr__(self) -> str:
        return f"HDF5Array({str(self.file)!r}, {self.name!r}): {self.dtype}{list(self.shape)}"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": None}

    def _read(self, rows: Int[np.ndarray, " b"]) -> Shaped[np.ndarray, "b ..."]:
        # By slices, for h5py takes up to 25 times as long to look up a list of rows.
        unique, inverse = np.unique(rows, return_inverse=True)
        runs = np.split(unique, np.flatnonzero(np.diff(unique) > 1) + 1)
        dataset = self._dataset
        return np.concatenate([dataset[run[0] : run[-1] + 1] for run in runs])[inverse]

    @property
    def _dataset(self) -> "h5py.Dataset":
        # An open file of HDF5 does not survive a fork.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), _h5py().File(self.file, "r")[self.name]
        return self._opened[1]

    def _describe(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        with _h5py().File(self.file, "r") as file:
            found = file.get(self.name)
            if _has_rows(found):
                return found.shape, found.dtype
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if _has_rows(item) else None)
            raise ValueError(
                f"{self.file} has no data set {self.name!r} whose first axis is the example: "
                f"choose from {names}"
            )


def _has_rows(item: Any) -> bool:
    return isinstance(item, _h5py().Dataset) and bool(item.shape)


#: Pillow's modes of eight bits a channel or less, as grey or colour without loss.
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}


class ImageFiles(FileColumn):
    """Image files of one size, decoded by Pillow to bytes, channels last.

    Row ``i`` is file ``i``: grey files have one channel, those in colour or with a palette three. A
    file is decoded whenever it is read, in the thread that asks: ``prefetch_to_device`` has one.

    Args:
      files: their paths, one per example.
      shape: of every image, ``(height, width, channels)``; that of the first file if left out.

    Raises:
      ValueError: if there is no file; later, if a file is of another size or number of channels,
        if bytes cannot hold it or its transparency, or if it is damaged.
      ImportError: if Pillow is missing.
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

    def __repr__(self) -> str:
        return f"ImageFiles({self.files[0]!r}, ...): {self.dtype}{list(self.shape)}"

    def _read(self, rows: Int[np.ndarray, " b"]) -> UInt8[np.ndarray, "b h w c"]:
        images = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for image, row in zip(images, rows, strict=True):
            image[:] = self._checked(self.files[row])
        return images

    def _checked(self, file: str) -> UInt8[np.ndarray, "h w c"]:
        image, expected = _decode(file), self.shape[1:]
        if image.shape != expected:
            raise ValueError(
                f"{file} has height, width and channels {image.shape}, expected {expected}: "
                "resize or convert it, or give the files of another shape a column of their own"
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
        except (OSError, SyntaxError) as error:  # Pillow's, which do not name the file
            raise ValueError(f"{file} is damaged ({error}): put a whole one there") from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("HDF5Array reads with h5py: pip install h5py") from error
    return h5py


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("ImageFiles reads with Pillow: pip install pillow") from error
    return Image
