"""A user's data: one table per modality, whose rows belong together, and statistics of each."""

import dataclasses
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Integer, Shaped

from mmvae_jax.data.columns import Column, read_rows

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


@dataclasses.dataclass(frozen=True, eq=False)
class Tables:
    """Modalities whose row ``i`` belongs to example ``i``.

    Attributes:
      place: file or folder of the tables, for messages.
      modalities: one or more tables by name.
      labels: class of each row, -1 where unknown; None without labels.
      index: name of each row; None if rows are matched by position.
      label_names: names of the classes ``0, 1, ...`` of text labels.
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


def blocks(
    values: Column, rows: Int[np.ndarray, " r"]
) -> Iterator[tuple[Int[np.ndarray, " b"], Shaped[np.ndarray, "b *shape"]]]:
    """Yields row numbers ``[b]`` and their values ``[b, *shape]``, a block at a time."""
    row_bytes = int(np.prod(values.shape[1:])) * values.dtype.itemsize
    size = max(1, BLOCK_BYTES // row_bytes)
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        yield chosen, read_rows(values, chosen)


def scan(
    place: str,
    values: Column,
    mask: Bool[np.ndarray, " n"],
    *,
    features: tuple[str, ...] | None = None,
    classes: tuple[str, ...] | None = None,
) -> Table:
    """Returns a table with the statistics of its values, from one pass over them.

    Args:
      place: name of the modality and its file, for messages.
      values: one row per example.
      mask: True for rows that may be observed; those that are NaN throughout are not.
      features: names of the columns.
      classes: names of the classes.

    Raises:
      ValueError: if an observed value is infinite.
    """
    observed = np.array(mask)
    low, high, are_whole, crc32, num_missing = np.inf, -np.inf, True, 0, 0
    for rows, block in blocks(values, np.arange(len(mask))):
        crc32 = zlib.crc32(np.ascontiguousarray(block).data.cast("B"), crc32)
        flat = block.reshape(len(block), -1)
        if block.dtype.kind == "f":
            observed[rows] &= ~np.isnan(flat).all(1)
        seen = flat[observed[rows]]
        if block.dtype.kind == "f":
            _check_finite(place, rows[observed[rows]], seen, features)
            there = ~np.isnan(seen)
            num_missing += int(seen.size - there.sum())
            seen = seen[there]
            are_whole = are_whole and bool((seen == np.floor(seen)).all())
        if seen.size:
            low, high = min(low, float(seen.min())), max(high, float(seen.max()))
    crc32 = zlib.crc32(observed.tobytes(), crc32)
    return Table(
        place, values, observed, low, high, are_whole, crc32, num_missing, features, classes
    )


def _check_finite(
    place: str,
    rows: Int[np.ndarray, " s"],
    seen: Shaped[np.ndarray, "s n"],
    features: tuple[str, ...] | None,
) -> None:
    """Checks that no observed value is infinite."""
    if not np.isinf(seen).any():
        return
    row, column = np.argwhere(np.isinf(seen))[0]
    name = column if features is None else repr(features[column])
    raise ValueError(
        f"{place}: row {rows[row]} holds {seen[row, column]} in column {name}: give finite "
        "numbers, or NaN for a missing value"
    )
