"""Frames and columns of pandas and polars."""

import importlib
import re
import warnings
from typing import Any

import numpy as np
from jaxtyping import Shaped

from mmvae_jax.tables.packages import import_for, library
from mmvae_jax.tables.values import UNKNOWN, SourceTable, numbers_of_objects

#: Column of row names: its name or its position.
IndexColumn = str | int | None
#: Beginning of the name that pandas gives to a column without one, such as a written index.
UNNAMED = "Unnamed: 0"


def is_frame(x: Any) -> bool:
    """Returns True for a frame or a column of pandas or polars."""
    is_lazy = hasattr(x, "collect")  # a polars.LazyFrame has no length
    return library(x) in ("pandas", "polars") and (hasattr(x, "__len__") or is_lazy)


def table_of_frame(place: str, x: Any, index_col: IndexColumn = None) -> SourceTable:
    """Returns a modality of a frame, with names of rows and columns.

    The index names the rows. In a frame without one, ``index_col`` does, or the first of several
    columns if it is text without repetitions. A frame of one column is a vector, of numbers or of
    classes.

    Args:
      place: name of the modality, for messages.
      x: frame or column of pandas or polars.
      index_col: name or position of the column that names the rows.

    Raises:
      ValueError: for dates, text that is different in each row, complex numbers, and unknown
        columns.

    Warns:
      UserWarning: of a column that is called an id, and holds numbers without repetitions.
    """
    frame = _as_pandas(place, x)
    if frame.columns.nlevels > 1 or frame.index.nlevels > 1:
        raise ValueError(f"{place} has a MultiIndex: flatten it, frame.reset_index()")
    if index_col is not None:
        frame = frame.set_index(column_named(place, list(frame.columns), index_col))
    elif _counts_rows(frame.index) and frame.shape[1] > 1 and _names_rows(frame.iloc[:, 0]):
        frame = frame.set_index(frame.columns[0])
    else:
        _warn_of_id(place, frame)
    if not frame.shape[1]:
        raise ValueError(f"{place} has no columns besides the names of its rows: give values")
    index = _row_names(place, frame.index)
    is_named = not _counts_rows(frame.columns)
    features = tuple(map(str, frame.columns)) if is_named else None
    text = _text_columns(place, frame)
    if not text:
        values = _numbers(place, frame)
        values = values[:, 0] if values.shape[1] == 1 else values
        return SourceTable(place, values, index, features)
    if frame.shape[1] > 1:
        return _table_with_text(place, frame, text, index)
    codes, classes = _codes(frame.iloc[:, 0])
    return SourceTable(place, codes.astype(np.int64), index, features, classes, codes != UNKNOWN)


def _table_with_text(
    place: str, frame: Any, text: list[Any], index: Shaped[np.ndarray, " n"]
) -> SourceTable:
    """Returns a table of numbers and of the numbers of classes, NaN where missing.

    Raises:
      ValueError: for text that is no class: dates, and text without repetitions.
    """
    columns, names = [], []
    for number, name in enumerate(frame.columns):
        column = frame.iloc[:, number]
        if name not in text:
            columns.append(_numbers_of(place, column).astype(np.float64))
            names.append(None)
            continue
        codes, classes = _codes(column)
        is_date = re.fullmatch(r"\d{4}-\d\d?-\d\d?.*", classes[0]) is not None
        if is_date or (len(classes) > 1 and len(classes) == (codes != UNKNOWN).sum()):
            kind = "dates" if is_date else "a different text in each row"
            raise ValueError(
                f"{place} has the text column {name!r} among {frame.shape[1]} columns, with "
                f"{kind}: make it the index (index_col), convert it to numbers, or drop it"
            )
        columns.append(np.where(codes == UNKNOWN, np.nan, codes))
        names.append(classes)
    features = tuple(map(str, frame.columns))
    values = np.column_stack(columns)
    return SourceTable(place, values, index, features, column_classes=tuple(names))


def _codes(column: Any) -> tuple[Shaped[np.ndarray, " n"], tuple[str, ...]]:
    """Returns the number of each row's class, ``UNKNOWN`` where missing, and the sorted names."""
    codes, names = _pandas().factorize(column.astype(object), sort=True)
    return codes, tuple(map(str, names))


def _pandas() -> Any:
    """Returns pandas, which the user of a frame has imported already."""
    return importlib.import_module("pandas")


def _as_pandas(place: str, x: Any) -> Any:
    """Returns a frame of pandas."""
    if library(x) == "polars":
        import_for(f"{place}, a {type(x).__name__} of polars,", "pandas", "tables")
        import_for(f"{place}, a {type(x).__name__} of polars,", "pyarrow", "tables")
        x = (x.collect() if hasattr(x, "collect") else x).to_pandas()
    if hasattr(x, "columns"):
        return x
    if not hasattr(x, "to_frame"):  # an array of categories or of another extension
        x = _pandas().Series(x)
    return x.to_frame() if hasattr(x, "index") else x.to_frame(index=False)


def column_named(place: str, columns: list[Any], index_col: IndexColumn) -> Any:
    """Returns the name of the column that names the rows."""
    if index_col in columns:
        return index_col
    if isinstance(index_col, int) and -len(columns) <= index_col < len(columns):
        return columns[index_col]
    raise ValueError(f"index_col is {index_col!r}: {place} has the columns {columns[:20]}")


def _counts_rows(index: Any) -> bool:
    """Returns True for an index that pandas makes by itself: 0, 1, 2, ..."""
    return type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1


def _names_rows(column: Any) -> bool:
    """Returns True for a column that pandas has written as an index, and for unique text."""
    if column.name == UNNAMED:
        return True
    is_object = _kind(column.dtype) == "O" and str(column.dtype) != "category"
    return is_object and bool(column.is_unique) and _is_text(column)


def _warn_of_id(place: str, frame: Any) -> None:
    """Warns of names of rows that are whole numbers, and so look like values."""
    name, column = frame.columns[0], frame.iloc[:, 0]
    is_id = re.search(r"(\b|_)id$|^id\b", str(name), re.IGNORECASE)
    if frame.shape[1] > 1 and is_id and _kind(column.dtype) in "iu" and column.is_unique:
        warnings.warn(
            f"{place} has the column {name!r} of whole numbers among its values: give "
            f"index_col={name!r} if they name the rows",
            stacklevel=2,
        )


def _row_names(place: str, index: Any) -> Shaped[np.ndarray, " n"]:
    """Returns the names of rows as text."""
    if index.hasnans:
        row = int(np.flatnonzero(index.isna())[0])
        raise ValueError(f"{place} has no name in row {row} of its index: give every row a name")
    return np.array(index.map(str), dtype=str)


def _text_columns(place: str, frame: Any) -> list[Any]:
    """Returns the names of the columns of text, after a check that no others hold dates."""
    text = []
    for number, (name, dtype) in enumerate(frame.dtypes.items()):
        kind = _kind(dtype)
        if kind in "mMc":
            raise ValueError(
                f"{place} has the column {name!r} of {dtype}: convert it to numbers, or drop it"
            )
        if kind == "O" and _is_text(frame.iloc[:, number]):
            text.append(name)
    return text


def _is_text(column: Any) -> bool:
    """Returns True for a column of strings and missing values."""
    return _pandas().api.types.infer_dtype(column.astype(object), skipna=True) == "string"


def _numbers(place: str, frame: Any) -> Shaped[np.ndarray, "n c"]:
    """Returns columns of numbers and booleans, NaN where missing."""
    kinds = {_kind(dtype) for dtype in frame.dtypes}
    if kinds != {"O"} and len(kinds) == 1 and all(isinstance(d, np.dtype) for d in frame.dtypes):
        return frame.to_numpy()
    columns = (frame.iloc[:, number] for number in range(frame.shape[1]))
    return np.column_stack([_numbers_of(place, column) for column in columns])


def _numbers_of(place: str, column: Any) -> Shaped[np.ndarray, " n"]:
    """Returns a column of numbers; one of pandas' own types, or of objects, becomes NumPy's."""
    kind = _kind(column.dtype)
    if kind == "O":
        objects = column.astype(object).to_numpy()
        return numbers_of_objects(f"column {column.name!r} of {place}", objects)
    if isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    if kind == "f" or column.hasnans:
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return column.to_numpy(dtype=bool if kind == "b" else np.int64)


def _kind(dtype: Any) -> str:
    """Returns NumPy's letter for the kind of a type, "O" for types of pandas."""
    return getattr(dtype, "kind", "O")
