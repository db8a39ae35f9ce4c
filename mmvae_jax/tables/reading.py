"""Tables of a user, read from an .npz file or a folder of .npy files."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data import num_examples
from mmvae_jax.tables.tables import LABELS, MASK, PROBABILITIES, Tables, scan


def read_tables(source: Path) -> Tables:
    """Reads ``<name>`` of an .npz file, or ``<name>.npy`` of a folder, for every modality.

    Beside them may be ``labels``, and masks: ``mask/<name>`` in a file, ``mask/<name>.npy`` in a
    folder. Nothing is unpickled.

    Raises:
      FileNotFoundError: if there is no such file or folder.
      ValueError: if an array is damaged, not numeric, of another length, or infinite.
    """
    arrays = {name: x for name, x in _load(source).items() if not name.startswith(PROBABILITIES)}
    names = [name for name in arrays if name.startswith(MASK)]
    masks = {name.removeprefix(MASK): arrays.pop(name) for name in names}
    labels = arrays.pop(LABELS, None)
    _check(source, arrays, masks, labels)
    modalities = {
        name: scan(f"{name} in {source}", x, masks.get(name, np.ones(len(x), bool)))
        for name, x in arrays.items()
    }
    return Tables(str(source), modalities, labels)


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
        num_examples(MultimodalArrays(arrays, labels))
        if masks:
            num_examples(MultimodalArrays({name: arrays[name] for name in masks}, mask=masks))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for name, x in arrays.items():
        if 0 in x.shape:
            raise ValueError(f"{name} in {path} has shape {x.shape}: give at least one value")
    if labels is not None and (labels.dtype.kind not in "iu" or labels.ndim != 1):
        raise ValueError(
            f"{LABELS} in {path} is {labels.dtype}{list(labels.shape)}: give one integer per row"
        )
