"""A user's arrays, one per modality, in an .npz file or a folder of .npy files."""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Integer, Shaped

import mmvae_jax as mm
from mmvae_jax.data import num_examples

#: Name of the array that is no modality: a class per row, which only figures use.
LABELS = "labels"
#: Prefix of masks: ``mask/image`` is True in the rows that observe ``image``.
MASK = "mask/"
#: Prefix of the probabilities of classes that ``mmvae predict`` writes beside them.
PROBABILITIES = "probabilities/"
#: Approximate size of the blocks in which files larger than memory are read.
BLOCK_BYTES = 2**25


class ModalityArray(NamedTuple):
    """The array of a modality, and statistics of one pass over it.

    Attributes:
      place: name and file of the array, for messages.
      values: one row per example; mapped into memory if the array has its own file.
      observed: True for rows that the mask has and that are not NaN throughout.
      low: smallest observed value; infinity without any.
      high: largest observed value; minus infinity without any.
      are_whole: True if all observed values are whole numbers.
      crc32: checksum of all rows and of ``observed``, by which a resumed run knows its data.
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
      path: file or folder of the arrays.
      modalities: one or more arrays by name.
      labels: class of each row, if known.
    """

    path: Path
    modalities: dict[str, ModalityArray]
    labels: Integer[np.ndarray, " n"] | None

    @property
    def num_rows(self) -> int:
        """Number of examples."""
        return len(next(iter(self.modalities.values())).values)


def read_table(path: Path) -> Table:
    """Reads ``<name>`` of an .npz file, or ``<name>.npy`` of a folder, for every modality.

    Beside them may be ``labels``, and masks: ``mask/<name>`` in a file, ``mask/<name>.npy`` in a
    folder. Nothing is unpickled.

    Raises:
      FileNotFoundError: if there is no such file or folder.
      ValueError: if an array is damaged, not numeric, of another length, infinite, or NaN in part
        of a row.
    """
    arrays = {name: x for name, x in _load(path).items() if not name.startswith(PROBABILITIES)}
    names = [name for name in arrays if name.startswith(MASK)]
    masks = {name.removeprefix(MASK): arrays.pop(name) for name in names}
    labels = arrays.pop(LABELS, None)
    _check(path, arrays, masks, labels)
    modalities = {
        name: _scan(f"{name} in {path}", x, masks.get(name, np.ones(len(x), bool)))
        for name, x in arrays.items()
    }
    return Table(path, modalities, labels)


def blocks(
    values: Shaped[np.ndarray, "n *shape"], rows: Int[np.ndarray, " r"]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields row numbers ``[b]`` and their values ``[b, *shape]``, a block at a time."""
    size = max(1, BLOCK_BYTES // values[:1].nbytes)
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        yield chosen, np.asarray(values[chosen])


def _load(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays, masks and labels among them."""
    if not path.exists():
        raise FileNotFoundError(
            f"DATA is {path}: it does not exist, give an .npz file or a folder of .npy files"
        )
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ValueError(
            f"DATA is {path}: it is no .npz file, write one with np.savez or give a folder"
        )
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
    """Checks names, lengths, shapes and types."""
    if not arrays:
        raise ValueError(f"DATA is {path}: it holds no arrays, give one per modality")
    unknown = [MASK + name for name in masks if name not in arrays]
    if unknown:
        raise ValueError(f"{path} has the masks {unknown}: name them after {list(arrays)}")
    try:
        num_examples(mm.MultimodalArrays(arrays, labels))
        if masks:
            num_examples(mm.MultimodalArrays({name: arrays[name] for name in masks}, mask=masks))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for name, x in arrays.items():
        if 0 in x.shape:
            raise ValueError(f"{name} in {path} has shape {x.shape}: give at least one value")
    if labels is not None and (labels.dtype.kind not in "iu" or labels.ndim != 1):
        raise ValueError(
            f"{LABELS} in {path} is {labels.dtype}{list(labels.shape)}: give one integer per row"
        )


def _scan(place: str, values: np.ndarray, mask: np.ndarray) -> ModalityArray:
    """Computes the statistics of an array in one pass."""
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
    return ModalityArray(place, values, observed, low, high, are_whole, crc32)


def _check_finite(place: str, rows: np.ndarray, values: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(values).all(1))
    if not bad.size:
        return
    row, found = rows[bad[0]], values[bad[0]]
    num_nan = np.isnan(found).sum()
    problem = f"is NaN in {num_nan} of its {found.size} values" if num_nan else "is infinite"
    raise ValueError(
        f"{place}: row {row} {problem}: fill in single values; a missing row is NaN throughout, or "
        f"False in {MASK}NAME"
    )
