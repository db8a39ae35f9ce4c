"""A user's data: one table per modality, whose rows belong together, and statistics of each."""

import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Integer, Shaped

from mmvae_jax.checks import check_modalities
from mmvae_jax.data.columns import Column, read_rows
from mmvae_jax.tables.matching import select_rows
from mmvae_jax.tables.values import SourceTable

#: Name of the table that is no modality: a class per row, which only figures use.
LABELS = "labels"
#: Prefix of masks: ``mask/image`` is True in the rows that observe ``image``.
MASK = "mask/"
#: Prefix of the probabilities of classes that ``mmvae predict`` writes beside them.
PROBABILITIES = "probabilities/"
#: Approximate size of the blocks in which data larger than memory are read.
BLOCK_BYTES = 2**25


class Table(NamedTuple):
    """The values of a modality, and statistics of one pass over them.

    Attributes:
      place: name of the modality and its file, for messages.
      values: one row per example; a column that reads its file on demand, if it lies in one. NaN
        where a value is missing.
      observed: True for rows that the mask has and that are not NaN throughout.
      low: smallest observed value; infinity without any.
      high: largest observed value; minus infinity without any.
      are_whole: True if all observed values are whole numbers.
      crc32: checksum of all rows and of ``observed``, by which a resumed run knows its data.
      num_missing_entries: number of NaN in observed rows.
      features: names of the columns; None if unknown.
      classes: names of the classes ``0, 1, ...`` of a text column; None for numbers.
      column_classes: names of the classes of each text column, None for the other columns; None
        for a table without text among several columns.
    """

    place: str
    values: Column
    observed: Bool[np.ndarray, " n"]
    low: float
    high: float
    are_whole: bool
    crc32: int
    num_missing_entries: int = 0
    features: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    column_classes: tuple[tuple[str, ...] | None, ...] | None = None

    def select(self, rows: Int[np.ndarray, " r"]) -> SourceTable:
        """Returns the values of some rows, without statistics."""
        return SourceTable(
            self.place,
            select_rows(self.values, rows),
            features=self.features,
            classes=self.classes,
            mask=self.observed[rows],
            column_classes=self.column_classes,
        )

    def describe(self) -> str:
        """Returns type and shape of a row, and the numbers of rows and of missing values."""
        num_rows, num_missing = len(self.observed), self.num_missing_entries
        observed = f"{self.observed.sum()} of {num_rows} rows"
        observed = "all rows" if self.observed.all() else observed
        parts = [f"{self.values.dtype}{list(self.values.shape[1:])}", observed]
        if num_missing:
            parts.append(f"{num_missing} missing value{'s' * (num_missing > 1)}")
        if self.classes:
            parts.append(f"{len(self.classes)} classes: {first_names(self.classes)}")
        elif self.features:
            parts.append(first_names(self.features))
        return ", ".join(parts)


@dataclasses.dataclass(frozen=True, eq=False)
class Tables:
    """Modalities whose row ``i`` belongs to example ``i``.

    Attributes:
      place: file or folder of the tables, for messages.
      modalities: one or more tables by name.
      labels: class of each row, -1 where unknown; None without labels.
      index: name of each row; None if rows are matched by position.
      label_names: names of the classes ``0, 1, ...`` of text labels.

    >>> tables = mm.read_tables({"age": [31.0, 47.5, None], "kind": ["b", "a", "b"]})
    >>> print(tables.describe())
    source: 3 rows
      age                  float64[], 2 of 3 rows
      kind                 int64[], all rows, 2 classes: a, b
    >>> tables.take([2, 0]).modalities["kind"].values.tolist()
    [1, 1]
    """

    place: str
    modalities: dict[str, Table]
    labels: Integer[np.ndarray, " n"] | None = None
    index: Shaped[np.ndarray, " n"] | None = None
    label_names: tuple[str, ...] | None = None

    @property
    def num_rows(self) -> int:
        """Number of examples."""
        return len(next(iter(self.modalities.values())).observed)

    def __len__(self) -> int:
        return self.num_rows

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and of modalities, which scikit-learn asks for."""
        return self.num_rows, len(self.modalities)

    def __getitem__(self, rows: Any) -> "Tables":
        """Returns ``take(rows)``; scikit-learn indexes by ``(rows, ...)``."""
        return self.take(rows[0] if isinstance(rows, tuple) else rows)

    def take(self, rows: Any) -> "Tables":
        """Returns some rows in a new order, with the statistics of these rows.

        Args:
          rows: vector of row numbers, slice or mask.
        """
        chosen = np.arange(self.num_rows)[rows]
        index = None if self.index is None else self.index[chosen]
        parts = {name: table.select(chosen) for name, table in self.modalities.items()}
        return dataclasses.replace(
            self,
            modalities={name: scan(part, index) for name, part in parts.items()},
            labels=None if self.labels is None else self.labels[chosen],
            index=index,
        )

    def choose(self, modalities: Sequence[str]) -> "Tables":
        """Returns some of the modalities, in this order.

        Raises:
          ValueError: for unknown names.
        """
        check_modalities("modalities", modalities, self.modalities)
        return dataclasses.replace(
            self, modalities={name: self.modalities[name] for name in modalities}
        )

    def describe(self) -> str:
        """Returns a line for the rows and a line for each modality."""
        named = "" if self.index is None else ", matched by name"
        lines = [f"{self.place}: {self.num_rows} rows{named}"]
        lines += [f"  {name:20} {table.describe()}" for name, table in self.modalities.items()]
        return "\n".join(lines)


def first_names(names: tuple[str, ...]) -> str:
    """Returns the first names, and dots if there are more."""
    return ", ".join(names[:4]) + ", ..." * (len(names) > 4)


def blocks(
    values: Column, rows: Int[np.ndarray, " r"]
) -> Iterator[tuple[Int[np.ndarray, " b"], Shaped[np.ndarray, "b *shape"]]]:
    """Yields row numbers ``[b]`` and their values ``[b, *shape]``, a block at a time."""
    row_bytes = int(np.prod(values.shape[1:])) * values.dtype.itemsize
    size = max(1, BLOCK_BYTES // row_bytes)
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        yield chosen, read_rows(values, chosen)


def scan(part: SourceTable, index: Shaped[np.ndarray, " n"] | None = None) -> Table:
    """Returns a table with the statistics of its values, from one pass over them.

    Args:
      part: values with a mask; rows of it that are NaN throughout are not observed.
      index: name of each row, for the error.

    Raises:
      ValueError: naming row and column, if an observed value is infinite.
    """
    observed = np.ones(part.num_rows, bool) if part.mask is None else np.array(part.mask)
    low, high, are_whole, crc32, num_missing = np.inf, -np.inf, True, 0, 0
    for rows, block in blocks(part.values, np.arange(part.num_rows)):
        crc32 = zlib.crc32(np.ascontiguousarray(block).data.cast("B"), crc32)
        flat = block.reshape(len(block), -1)
        if block.dtype.kind == "f":
            observed[rows] &= ~np.isnan(flat).all(1)
        seen = flat[observed[rows]]
        if block.dtype.kind == "f":
            _check_finite(part, seen, rows[observed[rows]], index)
            there = ~np.isnan(seen)
            num_missing += int(seen.size - there.sum())
            seen = seen[there]
            are_whole = are_whole and bool((seen == np.floor(seen)).all())
        if seen.size:
            low, high = min(low, float(seen.min())), max(high, float(seen.max()))
    return Table(
        place=part.place,
        values=part.values,
        observed=observed,
        low=low,
        high=high,
        are_whole=are_whole,
        crc32=zlib.crc32(observed.tobytes(), crc32),
        num_missing_entries=num_missing,
        features=part.features,
        classes=part.classes,
        column_classes=part.column_classes,
    )


def _check_finite(
    part: SourceTable,
    seen: Shaped[np.ndarray, "s c"],
    rows: Int[np.ndarray, " s"],
    index: Shaped[np.ndarray, " n"] | None,
) -> None:
    """Checks that no observed value is infinite."""
    if not np.isinf(seen).any():
        return
    row, column = np.argwhere(np.isinf(seen))[0]
    number = rows[row]
    row_name = number if index is None else f"{number} ({str(index[number])!r})"
    name = column if part.features is None else repr(part.features[column])
    raise ValueError(
        f"{part.place}: row {row_name} is {seen[row, column]} in column {name}: give finite "
        "numbers, or NaN for a missing value"
    )
