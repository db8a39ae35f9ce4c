"""Rows of several modalities, matched by the names of the rows or by position."""

import dataclasses
import itertools
import warnings
from collections import Counter
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Integer, Shaped

from mmvae_jax.data.columns import Column, LazyColumn, read_rows
from mmvae_jax.tables.values import UNKNOWN, SourceTable


class MatchedColumn(LazyColumn):
    """Rows of another column in a new order, with placeholders for rows that it lacks.

    Args:
      column: column that holds the values.
      rows: row of ``column`` for each row; ``UNKNOWN`` where it has none.
    """

    def __init__(self, column: Column, rows: Int[np.ndarray, " n"]):
        self.column, self.rows = column, rows
        self.shape = (len(rows), *column.shape[1:])
        self.dtype = np.dtype(column.dtype)

    def _read(self, rows: Integer[np.ndarray, " b"]) -> Shaped[np.ndarray, "b ..."]:
        chosen = self.rows[rows]
        found = np.array(read_rows(self.column, np.maximum(chosen, 0)))
        found[chosen == UNKNOWN] = placeholder(found.dtype)
        return found


def placeholder(dtype: np.dtype) -> float | int:
    """Returns the value of missing rows: NaN, -1 for signed integers, 0 for bytes and booleans."""
    return {"f": np.nan, "i": UNKNOWN}.get(dtype.kind, 0)


def select_rows(column: Column, rows: Int[np.ndarray, " n"]) -> Column:
    """Returns rows of a column, read on demand if the column lies in a file.

    Args:
      column: column that holds the values.
      rows: row of ``column`` for each row; ``UNKNOWN`` where it has none.
    """
    selected = MatchedColumn(column, rows)
    is_in_memory = isinstance(column, np.ndarray) and not isinstance(column, np.memmap)
    return selected[:] if is_in_memory else selected


def match_rows(
    tables: Mapping[str, SourceTable], labels: SourceTable | None
) -> tuple[Shaped[np.ndarray, " n"] | None, dict[str, SourceTable], SourceTable | None]:
    """Returns tables whose row ``i`` belongs to example ``i``.

    Tables with an index are matched by it: examples are all names of rows, in order of first
    appearance, and a row that a table lacks is missing there. An index that only counts rows from
    0 says nothing, unless the other tables are named by whole numbers, too. Tables without an index
    are matched by position.

    Args:
      tables: modalities by name.
      labels: class of each row; it adds no rows.

    Returns:
      Names of the rows, None without any; the modalities; the labels.

    Raises:
      ValueError: if a name occurs twice in an index, or positions do not determine the rows.

    Warns:
      UserWarning: if a modality shares no row with the others.
    """
    everything = {**tables, **({} if labels is None else {"labels": labels})}
    indices = _indices_with_names(everything)
    if len(indices) < len(everything) or _are_equal(indices):
        _check_positions(everything, indices)
        return next(iter(indices.values()), None), dict(tables), labels
    index = _union([indices[name] for name in tables])
    rows = {name: _rows_of(found, index) for name, found in indices.items()}
    _warn_of_strangers(tables, indices, rows)
    matched = {name: _select(table, rows[name]) for name, table in tables.items()}
    return index, matched, None if labels is None else _select(labels, rows["labels"])


def _indices_with_names(
    tables: Mapping[str, SourceTable],
) -> dict[str, Shaped[np.ndarray, " n"]]:
    """Returns the indices that name rows, after a check that no name occurs twice."""
    indices = {name: table.index for name, table in tables.items() if table.index is not None}
    named = {name: index for name, index in indices.items() if not _counts_rows(index)}
    for modality, index in named.items():
        name, count = Counter(index.tolist()).most_common(1)[0]
        if count > 1:
            raise ValueError(
                f"{tables[modality].place} has {count} rows named {name!r} in its index: give "
                "every row its own name, or reset the index to match rows by position"
            )
    # A sorted or filtered frame has numbers, which name the rows of a frame in its first order.
    are_numbers = any(np.char.isdigit(index).all() for index in named.values())
    return indices if are_numbers else named


def _counts_rows(index: Shaped[np.ndarray, " n"]) -> bool:
    """Returns True for an index of 0, 1, 2, ..."""
    return bool(np.array_equal(index, np.arange(len(index)).astype(str)))


def _are_equal(indices: Mapping[str, Shaped[np.ndarray, " _"]]) -> bool:
    found = [*indices.values()]
    return all(np.array_equal(found[0], other) for other in found[1:])


def _check_positions(
    tables: Mapping[str, SourceTable], indices: Mapping[str, Shaped[np.ndarray, " _"]]
) -> None:
    """Raises ValueError unless row ``i`` of every table can be taken for the same example."""
    first, *others = tables.values()
    for other in others:
        if other.num_rows != first.num_rows:
            raise ValueError(
                f"{first.place} has {first.num_rows} rows, {other.place} has {other.num_rows}: "
                "give each modality one row per example, or names of rows in all (an index)"
            )
    if not _are_equal(indices):
        unnamed = next(table for name, table in tables.items() if name not in indices)
        places = " and ".join(tables[name].place for name in indices)
        raise ValueError(
            f"{unnamed.place} has no names of rows, and those of {places} differ: give it an index "
            "too, or bring the others into one order"
        )


def _union(indices: list[Shaped[np.ndarray, " _"]]) -> Shaped[np.ndarray, " n"]:
    """Returns all names in order of first appearance."""
    return np.array(list(dict.fromkeys(itertools.chain(*(i.tolist() for i in indices)))))


def _rows_of(
    index: Shaped[np.ndarray, " s"], names: Shaped[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Returns the row that each name has in an index; ``UNKNOWN`` where it has none."""
    rows = {name: row for row, name in enumerate(index.tolist())}
    return np.array([rows.get(name, UNKNOWN) for name in names.tolist()])


def _select(table: SourceTable, rows: Int[np.ndarray, " n"]) -> SourceTable:
    """Returns rows of a table, those that it lacks as missing."""
    there = rows != UNKNOWN
    if len(rows) == table.num_rows and np.array_equal(rows, np.arange(len(rows))):
        return table
    mask = there if table.mask is None else there & table.mask[rows]
    values = select_rows(table.values, rows)
    return dataclasses.replace(table, values=values, mask=mask, index=None)


def _warn_of_strangers(
    tables: Mapping[str, SourceTable],
    indices: Mapping[str, Shaped[np.ndarray, " _"]],
    rows: Mapping[str, Int[np.ndarray, " n"]],
) -> None:
    """Warns if a modality shares no row with the others."""
    num_tables = np.sum([rows[name] != UNKNOWN for name in tables], axis=0)
    for name, table in tables.items():
        if len(tables) > 1 and (num_tables[rows[name] != UNKNOWN] == 1).all():
            warnings.warn(
                f"{table.place} shares no row with the other modalities, its first row is "
                f"{str(indices[name][0])!r}: rows are matched by name",
                stacklevel=2,
            )
