"""A user's arrays, one per modality, as they lie in an .npz file or a folder of .npy files."""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Integer, Shaped

import mmvae_jax as mm
from mmvae_jax.data.arrays import num_examples

#: The array that is no modality: a class per row, which nothing but figures looks at.
LABELS = "labels"
#: What the names of masks begin with: ``mask/image`` says in which rows ``image`` was observed.
MASK = "mask/"
#: Files larger than memory are gone through in blocks of about so many bytes.
BLOCK_BYTES = 2**25


class Modality(NamedTuple):
    """An array, and what one pass over it has found.

    Attributes:
      place: its name and file, for messages.
      values: one row per example; mapped from its file, if that is its own.
      observed: which rows are there: those that the mask has, and that are not NaN throughout.
      low: the smallest value of these; infinity if there are none.
      high: the largest; minus infinity if there are none.
      are_whole: whether all are whole numbers.
      crc32: of all rows and of what is observed, to tell other data by.
    """

    place: str
    values: Shaped[np.ndarray, "n *shape"]
    observed: Bool[np.ndarray, " n"]
    low: float
    high: float
    are_whole: bool
    crc32: int


class Table(NamedTuple):
    """Modalities whose row ``i`` belongs to example ``i``.

    Attributes:
      path: the file or folder.
      modalities: by name, one or more.
      labels: class of each row, if known.
    """

    path: Path
    modalities: dict[str, Modality]
    labels: Integer[np.ndarray, " n"] | None

    @property
    def num_rows(self) -> int:
        """Number of examples."""
        return len(next(iter(self.modalities.values())).values)


def read_table(path: Path) -> Table:
    """Read ``<name>`` of an .npz file, or ``<name>.npy`` of a folder, for every modality.

    Beside them may be ``labels``, and masks: ``mask/<name>`` in a file, ``mask/<name>.npy`` in a
    folder. Nothing is unpickled.

    Raises:
      FileNotFoundError, ValueError: if something is missing, damaged, no array of numbers, of
        another length, infinite, or NaN in part of a row.
    """
    arrays = _load(path)
    names = [name for name in arrays if name.startswith(MASK)]
    masks = {name.removeprefix(MASK): arrays.pop(name) for name in names}
    labels = arrays.pop(LABELS, None)
    _check(path, arrays, masks, labels)
    modalities = {
        name: _look_through(f"{name} in {path}", x, masks.get(name, np.ones(len(x), bool)))
        for name, x in arrays.items()
    }
    return Table(path, modalities, labels)


def blocks(
    values: Shaped[np.ndarray, "n *shape"], rows: Int[np.ndarray, " r"]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Go through some rows, a few at a time: ``(rows [b], values[rows] [b, *shape])``."""
    size = max(1, BLOCK_BYTES // values[:1].nbytes)
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        yield chosen, np.asarray(values[chosen])


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}: give an .npz file or a folder of .npy files")
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no .npz file: write one with np.savez, or give a folder")
    arrays, place = {}, str(path)
    try:
        if path.is_dir():
            for file in [*sorted(path.glob("*.npy")), *sorted(path.glob(f"{MASK}*.npy"))]:
                place, name = str(file), file.relative_to(path).with_suffix("").as_posix()
                arrays[name] = np.load(file, mmap_mode="r")
        else:
            with np.load(path) as archive:
                for name in archive.files:
                    place = f"{name} in {path}"
                    arrays[name] = np.asarray(archive[name])
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{place} cannot be read: {error}") from error
    return arrays


def _check(
    path: Path,
    arrays: dict[str, np.ndarray],
    masks: dict[str, np.ndarray],
    labels: np.ndarray | None,
) -> None:
    unknown = [MASK + name for name in masks if name not in arrays]
    if unknown:
        raise ValueError(f"{path} holds {unknown}, masks of none of its arrays {list(arrays)}")
    try:
        num_examples(mm.MultimodalArrays(arrays, labels))
        if masks:
            num_examples(mm.MultimodalArrays({name: arrays[name] for name in masks}, mask=masks))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for name, x in arrays.items():
        if 0 in x.shape:
            raise ValueError(f"{name} in {path} has shape {x.shape}: there is nothing in it")
    if labels is not None and (labels.dtype.kind not in "iu" or labels.ndim != 1):
        raise ValueError(
            f"{LABELS} in {path} is {labels.dtype}{list(labels.shape)}: give one integer per row"
        )


def _look_through(place: str, values: np.ndarray, mask: np.ndarray) -> Modality:
    """Goes through all rows once."""
    observed = np.array(mask)
    low, high, are_whole, crc32 = np.inf, -np.inf, True, 0
    for rows, block in blocks(values, np.arange(len(values))):
        crc32 = zlib.crc32(block.tobytes(), crc32)
        flat = block.reshape(len(block), -1)
        if block.dtype.kind == "f":
            observed[rows] &= ~np.isnan(flat).all(1)
        there = observed[rows]
        seen = flat[there]
        if block.dtype.kind == "f":
            _check_finite(place, rows[there], seen)
            are_whole = are_whole and bool((seen == np.floor(seen)).all())
        if seen.size:
            low, high = min(low, float(seen.min())), max(high, float(seen.max()))
    crc32 = zlib.crc32(observed.tobytes(), crc32)
    return Modality(place, values, observed, low, high, are_whole, crc32)


def _check_finite(place: str, rows: np.ndarray, values: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(values).all(1))
    if not bad.size:
        return
    row, found = rows[bad[0]], values[bad[0]]
    what = "is infinite"
    if np.isnan(found).any():
        what = f"is NaN in {np.isnan(found).sum()} of its {found.size} values"
    raise ValueError(
        f"{place}: row {row} {what}; make a missing row NaN throughout, or False in {MASK}<name>, "
        "and fill in single values"
    )
