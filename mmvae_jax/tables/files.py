"""Modalities in files and folders: their names, and the values of one of them."""

import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmvae_jax.tables.annotated import open_annotated, read_element
from mmvae_jax.tables.frame_files import read_frame_file
from mmvae_jax.tables.frames import IndexColumn
from mmvae_jax.tables.packages import damage_named, import_for
from mmvae_jax.tables.tables import MASK
from mmvae_jax.tables.values import SourceTable, table_of_values

#: Suffixes of files of one modality.
ONE = (".csv", ".csv.gz", ".h5ad", ".npy", ".parquet", ".tsv", ".tsv.gz")
#: Suffixes of files of several modalities.
SEVERAL = (".h5", ".h5ad", ".h5mu", ".hdf5", ".npz")


def suffix_of(file: Path) -> str:
    """Returns the suffix that tells the format, in lower case: ``.csv.gz`` of ``a.b.csv.gz``."""
    name = file.name.lower()
    return next((suffix for suffix in ONE if name.endswith(suffix)), file.suffix.lower())


def list_folder(folder: Path) -> dict[str, Path]:
    """Returns the files of a folder by their stem, masks as ``mask/<stem>``.

    Hidden files are ignored.

    Raises:
      ValueError: if there is none that can be read, or two of one name.

    Warns:
      UserWarning: of files of other formats, which are ignored, too.
    """
    files = [*sorted(folder.iterdir()), *sorted((folder / MASK).glob("*.npy"))]
    files = [file for file in files if file.is_file() and not file.name.startswith(".")]
    found: dict[str, Path] = {}
    for file in (file for file in files if suffix_of(file) in ONE):
        name = file.name[: -len(suffix_of(file))]
        name = name if file.parent == folder else MASK + name
        if name in found:
            raise ValueError(f"{folder} has {found[name].name} and {file.name}: keep one of them")
        found[name] = file
    ignored = [file.name for file in files if suffix_of(file) not in ONE]
    if not found:
        raise ValueError(
            f"{folder} has no files of modalities: give one file per modality, {', '.join(ONE)}"
        )
    if ignored:
        warnings.warn(
            f"{folder}: {', '.join(ignored[:10])} ignored, formats are {', '.join(ONE)}",
            stacklevel=2,
        )
    return found


def list_npz(file: Path) -> dict[str, Callable[[], Any]]:
    """Returns the arrays of an .npz file by name, each as a function that reads it.

    Nothing is unpickled.
    """
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file} is no .npz file: write one with np.savez, or give a folder")

    def read(name: str) -> np.ndarray:
        with damage_named(f"{name} in {file}"), np.load(file) as archive:
            return np.asarray(archive[name])

    with damage_named(str(file)), np.load(file) as archive:
        return {name: partial(read, name) for name in archive.files}


def list_hdf5(group: Any) -> dict[str, Any]:
    """Returns the datasets at the top of an h5py file, and those of its group ``mask``."""
    masks = group.get(MASK.rstrip("/"), {})
    nodes = {**group, **{f"{MASK}{name}": node for name, node in masks.items()}}
    # Groups have no shape, and scalars, which files keep as metadata, an empty one.
    return {name: node for name, node in nodes.items() if getattr(node, "shape", ())}


def open_hdf5(file: Path) -> Any:
    """Opens an HDF5 file, which stays open as long as its datasets are used."""
    h5py = import_for(str(file), "h5py", "tables")
    with damage_named(str(file)):
        return h5py.File(file, "r")


def read_file(place: str, file: Path, index_col: IndexColumn = None) -> SourceTable:
    """Reads a file of one modality.

    Args:
      place: name of the modality and its file, for messages.
      file: path of the file.
      index_col: column of row names, see ``read_tables``.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: if its format needs a package that is missing.
      ValueError: for other formats, and damaged files.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist: give {', '.join(ONE)}")
    if file.is_dir():
        raise ValueError(f"{file} is a folder: give a file of one modality, {', '.join(ONE)}")
    suffix = suffix_of(file)
    if suffix == ".npy":
        with damage_named(str(file)):
            values = np.load(file, mmap_mode="r")
        return table_of_values(place, values)
    if suffix == ".h5ad":
        return read_element(place, open_annotated(file), "X")
    if suffix in ONE:
        return read_frame_file(place, file, index_col)
    advice = f", or (file, name) for one modality of {', '.join(SEVERAL)}"
    raise ValueError(f"{place} has the suffix {suffix!r}: give {', '.join(ONE)}{advice}")
