"""One modality as its source holds it: arrays, lists, text, sparse matrices, columns in files."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Integer, Shaped

from mmvae_jax.data.columns import Column, LazyColumn
from mmvae_jax.inputs.array_likes import as_column, is_column, native
from mmvae_jax.tables.packages import library

#: Code of a missing class.
UNKNOWN = -1


@dataclasses.dataclass(frozen=True, eq=False)
class SourceTable:
    """A modality before its rows are matched with those of other modalities.

    Attributes:
      place: name of the modality and its file, for messages.
      values: one row per row of the source.
      index: name of each row; None if it has none.
      features: names of the columns; None if unknown.
      classes: names of the classes ``0, 1, ...`` of text; None for numbers.
      mask: True for rows that are observed; None if all are.
      column_classes: names of the classes of each text column, None for the other columns; None
        for a table without text among several columns.
    """

    place: str
    values: Column
    index: Shaped[np.ndarray, " n"] | None = None
    features: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    mask: Bool[np.ndarray, " n"] | None = None
    column_classes: tuple[tuple[str, ...] | None, ...] | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.values.shape[0]


class SparseColumn(LazyColumn):
    """Rows of a sparse matrix, in memory or in a file, as dense rows when they are read.

    Args:
      matrix: matrix of scipy, or of a file that anndata has opened, compressed by row.
    """

    def __init__(self, matrix: Any):
        self.matrix = matrix
        self.shape = tuple(map(int, matrix.shape))
        self.dtype = np.dtype(matrix.dtype)

    def _read(self, rows: Integer[np.ndarray, " b"]) -> Shaped[np.ndarray, "b ..."]:
        unique, inverse = np.unique(rows, return_inverse=True)  # files need rising rows
        return self.matrix[unique].toarray()[inverse]


def table_of_values(place: str, x: Any) -> SourceTable:
    """Returns a modality of an array, a list, a sparse matrix or a column in a file.

    Text becomes classes: integers in the sorted order of the names, ``UNKNOWN`` where missing.

    Args:
      place: name of the modality, for messages.
      x: values whose first axis is the row.

    Raises:
      ValueError: for values that are neither numbers nor text, and for scalars.
    """
    if _is_sparse(x):
        return SourceTable(place, _sparse_column(place, x))
    if isinstance(x, np.ma.MaskedArray):
        x = np.ma.filled(x.astype(np.float64), np.nan) if np.ma.is_masked(x) else x.data
    if isinstance(x, list | tuple):
        x = _from_list(place, x)
    dtype = getattr(x, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind in "OSUT" and x.shape:
        return _table_of_objects(place, np.asarray(x[:], object))
    column = as_column(place, x)
    if not (is_column(column) or hasattr(column, "__array__")):
        raise ValueError(f"{place} is a {type(x).__name__}: give an array, a frame or a file")
    column = column if is_column(column) or isinstance(column, np.memmap) else np.asarray(column)
    if not column.shape:
        raise ValueError(f"{place} is a scalar: give one row per example")
    return SourceTable(place, native(column) if type(column) is np.ndarray else column)


def codes_of_text(
    text: Shaped[np.ndarray, " n"],
) -> tuple[Int[np.ndarray, " n"], tuple[str, ...]]:
    """Returns the number of each row's class, and the names of the classes in sorted order.

    Args:
      text: names as Python strings, None or NaN where missing.

    >>> codes, classes = codes_of_text(np.array(["lung", None, "brain", "lung"], object))
    >>> codes.tolist(), classes
    ([1, -1, 0, 1], ('brain', 'lung'))
    """
    there = ~missing_objects(text)
    names, inverse = np.unique(text[there].astype(str), return_inverse=True)
    codes = np.full(len(text), UNKNOWN, np.int64)
    codes[there] = inverse
    return codes, tuple(names.tolist())


def missing_objects(x: Shaped[np.ndarray, "*n"]) -> Bool[np.ndarray, "*n"]:
    """Returns True for None, NaN and the missing values of pandas."""
    return np.vectorize(_is_missing, otypes=[bool])(x)


def is_text(x: Shaped[np.ndarray, "*n"]) -> bool:
    """Returns True for an array of strings and missing values with at least one string."""
    present = x[~missing_objects(x)]
    return bool(present.size) and all(isinstance(entry, str) for entry in present)


def _is_missing(entry: Any) -> bool:
    return (
        entry is None
        or type(entry).__name__ in ("NAType", "NaTType")
        or (isinstance(entry, float | np.floating) and bool(np.isnan(entry)))
    )


def _is_sparse(x: Any) -> bool:
    return hasattr(x, "format") and (library(x) == "scipy" or hasattr(x, "to_memory"))


def _sparse_column(place: str, x: Any) -> SparseColumn:
    """Returns the rows of a sparse matrix, compressed by row."""
    if len(x.shape) != 2 or np.dtype(x.dtype).kind not in "biuf":
        raise ValueError(f"{place} is sparse {x.dtype}{list(x.shape)}: give a matrix of numbers")
    if library(x) == "scipy":
        return SparseColumn(x.tocsr())
    # A matrix that is compressed by column has to be read in full to find a row.
    return SparseColumn(x if x.format == "csr" else x.to_memory().tocsr())


def _from_list(place: str, x: list | tuple) -> Any:
    """Returns a list as an array; None, for a row or a value, becomes NaN."""
    there = [row for row in x if row is not None]
    if len(there) < len(x) and there and np.ndim(there[0]):
        missing = np.full(np.shape(there[0]), np.nan)
        x = [missing if row is None else row for row in x]
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{place} is a ragged list: give rows of one shape ({error})") from error
    # NumPy turns numbers beside text into text.
    return np.asarray(x, object) if array.dtype.kind in "SUT" else array


def _table_of_objects(place: str, x: Shaped[np.ndarray, "n *shape"]) -> SourceTable:
    """Returns the classes of text, or the numbers that an array of objects holds."""
    if x.ndim == 2 and x.shape[1] == 1:
        x = x[:, 0]
    x = np.array([e.decode() if isinstance(e, bytes) else e for e in x.flat], object).reshape(
        x.shape
    )
    if is_text(x):
        if x.ndim != 1:
            raise ValueError(
                f"{place} is text of shape {x.shape}: give each column as its own modality"
            )
        codes, classes = codes_of_text(x)
        return SourceTable(place, codes, classes=classes, mask=codes != UNKNOWN)
    return SourceTable(place, numbers_of_objects(place, x))


def numbers_of_objects(place: str, x: Shaped[np.ndarray, "*n"]) -> Shaped[np.ndarray, "*n"]:
    """Returns Python numbers as doubles, NaN where missing, or integers and booleans if all are.

    Raises:
      ValueError: naming the first object that is no number.
    """
    missing = missing_objects(x)
    for entry in x[~missing]:
        if not isinstance(entry, bool | int | float | np.bool_ | np.integer | np.floating):
            raise ValueError(
                f"{place} holds {entry!r}, of type {type(entry).__name__}: give numbers, or text "
                "throughout for classes"
            )
    if not missing.any() and x.size:
        return np.array(x.tolist())
    return np.where(missing, np.nan, x).astype(np.float64)
