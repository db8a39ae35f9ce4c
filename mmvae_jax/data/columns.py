"""Columns of a data set: one value per example, in memory, in files, or made on demand."""

from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Integer, Shaped

from mmvae_jax.inputs.array_likes import native


@runtime_checkable
class Column(Protocol):
    """The values of one modality: any object with a shape, a dtype and slices of rows.

    Examples are NumPy arrays, files mapped into memory by ``np.load(file, mmap_mode="r")`` or
    ``np.memmap``, data sets of an open ``h5py.File``, ``ImageFiles`` and ``IndexedColumn``. A batch
    reads its own rows only.

    >>> isinstance(np.zeros((5, 4)), Column)
    True
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``(n, *dim)``."""
        ...

    @property
    def dtype(self) -> Any:
        """Type of the values, which reading keeps."""
        ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Returns the values ``[b, *dim]`` of a slice of rows."""
        ...


class LazyColumn(ABC):
    """Base of columns whose rows are made when they are read, in any order.

    Attributes:
      shape: ``(n, *dim)``.
      dtype: type of the values.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.dtype}{list(self.shape)}"

    def __getitem__(self, rows: np.ndarray | slice) -> Shaped[np.ndarray, "b ..."]:
        """Returns the values of a slice, of a vector of rows or of a mask, as numpy does.

        Raises:
          IndexError: if a row is not one of ``-n, ..., n - 1``.
          ValueError: if the rows are no vector.
        """
        chosen = np.arange(len(self))[rows]
        if np.ndim(chosen) != 1:
            raise ValueError(f"rows is {rows!r}: give a slice, a vector of integers or a mask")
        if not chosen.size:
            return np.empty((0, *self.shape[1:]), self.dtype)
        return self._read(chosen)

    @abstractmethod
    def _read(self, rows: Integer[np.ndarray, " b"]) -> Shaped[np.ndarray, "b ..."]:
        """Returns the values of at least one row from ``0, ..., n - 1``, possibly repeated."""


class IndexedColumn(LazyColumn):
    """A column whose row ``i`` is row ``index[i]`` of another column, read on demand.

    Rows may repeat: each takes the four or eight bytes of its index, however large its values are.

    Args:
      column: column that holds the values.
      index: rows of ``column``, ``[n]`` integers of any size.

    Raises:
      ValueError: if ``index`` is not a vector of integers.
      IndexError: if an entry is not in ``0, ..., len(column) - 1``.

    >>> from mmvae_jax.data import IndexedColumn
    >>> column = IndexedColumn(np.array([0.0, 0.1, 0.2]), np.array([2, 2, 0, 1]))
    >>> column[1:].tolist()
    [0.2, 0.0, 0.1]
    """

    def __init__(self, column: Column, index: np.ndarray):
        if index.ndim != 1 or index.dtype.kind not in "iu":
            raise ValueError(
                f"index is {index.dtype}{list(index.shape)}: give a vector of integers, rows of "
                "the column"
            )
        if index.size and not 0 <= index.min() <= index.max() < column.shape[0]:
            raise IndexError(
                f"index is {index.min()} to {index.max()}: the column has the rows 0 to "
                f"{column.shape[0] - 1}"
            )
        self.column = column
        self.index = index
        self.shape = (len(index), *column.shape[1:])
        self.dtype = column.dtype

    def __getitem__(self, rows: np.ndarray | slice) -> Shaped[np.ndarray, "b ..."]:
        """Returns the values of a slice, of a vector of rows or of a mask, as numpy does."""
        return self._read(self.index[rows])

    def _read(self, rows: Integer[np.ndarray, " b"]) -> Shaped[np.ndarray, "b ..."]:
        return read_rows(self.column, rows)


def read_rows(column: Column, rows: Integer[np.ndarray, " b"] | slice) -> Any:
    """Returns the values ``[b, *dim]`` of rows, in any order and with repetitions.

    Values in another byte order or in extended precision become native ones.

    Args:
      column: any column.
      rows: vector of rows, or slice; negative rows count from the end.

    Raises:
      IndexError: if a row is not one of ``-n, ..., n - 1``.

    >>> from mmvae_jax.data import read_rows
    >>> read_rows(np.array([0.0, 0.1, 0.2]), np.array([2, 0, 2])).tolist()
    [0.2, 0.0, 0.2]
    """
    if isinstance(column, jax.Array):
        return column[rows]
    if isinstance(column, np.ndarray | LazyColumn):
        return native(column[rows])
    # All other columns are read by slices. h5py refuses a vector of rows that does not rise, and
    # takes about ten times as long for a vector as for the slices that make it up.
    unique, inverse = np.unique(np.arange(column.shape[0])[rows], return_inverse=True)
    if not unique.size:
        return native(np.asarray(column[:0]))
    runs = np.split(unique, np.flatnonzero(np.diff(unique) > 1) + 1)
    parts = [np.asarray(column[run[0] : run[-1] + 1]) for run in runs]
    return native(np.concatenate(parts)[inverse])
