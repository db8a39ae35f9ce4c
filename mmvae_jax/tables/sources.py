"""Modalities of a source, by name, before any of their values are read."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmvae_jax.batch import Batch, MultimodalArrays
from mmvae_jax.checks import check_modalities
from mmvae_jax.inputs.paths import as_path
from mmvae_jax.tables.annotated import element_names, is_annotated, open_annotated, read_element
from mmvae_jax.tables.files import (
    ONE,
    SEVERAL,
    list_folder,
    list_hdf5,
    list_npz,
    open_hdf5,
    read_file,
    suffix_of,
)
from mmvae_jax.tables.frames import IndexColumn, is_frame, table_of_frame
from mmvae_jax.tables.packages import import_for
from mmvae_jax.tables.tables import LABELS, MASK, PROBABILITIES
from mmvae_jax.tables.values import SourceTable, table_of_values

SOURCES = "a dict of modalities, a file, a folder, an AnnData or a MuData"


class Source(NamedTuple):
    """Modalities of a source.

    Attributes:
      place: path of the source, for messages; "source" for objects in memory.
      entries: entries of the modalities, labels and masks by name, see ``read_entry``.
      on_request: entries that are only read when they are chosen, such as ``obs/celltype``.
    """

    place: str
    entries: dict[str, Any]
    on_request: dict[str, Any]

    def choose(self, modalities: tuple[str, ...] | None) -> "Source":
        """Returns only some modalities, with their masks and labels.

        Elements on request get the last part of their name: ``obs/celltype`` is ``celltype``.

        Raises:
          ValueError: for unknown names, and if there is no modality.
        """
        others = {n: x for n, x in self.entries.items() if n == LABELS or n.startswith(MASK)}
        known = {n: x for n, x in self.entries.items() if n not in others}
        known = {n: x for n, x in known.items() if not n.startswith(PROBABILITIES)}
        if modalities is not None and not modalities:
            raise ValueError("modalities is empty: give the name of one or more")
        if not known and not (modalities and self.on_request):
            more = f", or choose some of {list(self.on_request)[:20]}" if self.on_request else ""
            raise ValueError(
                f"{self.place} holds no modalities: give one array or file for each{more}"
            )
        if modalities is None:
            return Source(self.place, {**known, **others}, {})
        every = {**known, **self.on_request}
        check_modalities("modalities", modalities, every)
        names = [n if n in known else n.rpartition("/")[2] for n in modalities]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"modalities names {repeated[0]!r} twice: give a dict of modalities")
        chosen = {name: every[key] for name, key in zip(names, modalities, strict=True)}
        masks = {n: x for n, x in others.items() if n.removeprefix(MASK) in (*chosen, LABELS)}
        return Source(self.place, {**chosen, **masks}, {})


def open_source(source: Any) -> Source:
    """Returns the modalities of a source.

    Raises:
      FileNotFoundError: if a file or folder does not exist.
      ImportError: if a format needs a package that is missing.
      ValueError: for other types, and damaged files.
    """
    if isinstance(source, Mapping):
        entries = list_hdf5(source) if hasattr(source, "visititems") else dict(source)
        if wrong := [name for name in entries if not isinstance(name, str)]:
            raise ValueError(f"source has the key {wrong[0]!r}: give names of modalities")
        return Source("source", entries, {})
    if isinstance(source, MultimodalArrays | Batch):
        return Source("source", _entries_of_arrays(source), {})
    if is_annotated(source):
        return Source("source", *_entries_of_annotated(source))
    if not isinstance(source, str | bytes | os.PathLike):
        raise ValueError(f"source is a {type(source).__name__}: give {SOURCES}")
    path = as_path(source, "source")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a folder, or {', '.join(SEVERAL)}")
    if path.is_dir():
        return Source(str(path), dict(list_folder(path)), {})
    suffix = suffix_of(path)
    if suffix in (".h5ad", ".h5mu"):
        return Source(str(path), *_entries_of_annotated(open_annotated(path)))
    if suffix == ".npz":
        return Source(str(path), dict(list_npz(path)), {})
    if suffix in (".h5", ".hdf5"):
        return Source(str(path), list_hdf5(open_hdf5(path)), {})
    if suffix in ONE:
        return Source(str(path), {path.name[: -len(suffix)]: path}, {})
    formats = ", ".join(sorted({*ONE, *SEVERAL}))
    raise ValueError(f"{path} has the suffix {suffix!r}: give a folder, or {formats}")


def read_entry(place: str, entry: Any, index_col: IndexColumn) -> SourceTable:
    """Returns the values of a modality, with the names of its rows as far as they are known.

    Args:
      place: name of the modality, for messages.
      entry: values, a path, a function that reads values, or ``(source, name)`` for one modality
        of a source of several, which is a path or an AnnData or MuData.
      index_col: column of row names in frames and their files.
    """
    if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], str):
        return _read_part(place, *entry, index_col)
    if isinstance(entry, str | bytes | os.PathLike):
        file = as_path(entry, place)
        return read_file(place, file, index_col)
    if is_annotated(entry):
        return read_element(place, entry, "X")
    if is_frame(entry):
        return table_of_frame(place, entry, index_col)
    values = entry() if isinstance(entry, partial) else entry
    if isinstance(values, np.ndarray) and values.dtype.names and values.ndim == 1:
        frame = import_for(place, "pandas", "tables").DataFrame(values)
        return table_of_frame(place, frame, index_col)
    return table_of_values(place, values)


def _read_part(place: str, source: Any, name: str, index_col: IndexColumn) -> SourceTable:
    """Reads one modality of a source of several."""
    if is_annotated(source):
        return read_element(place, source, name)
    opened = open_source(source)
    every = {**opened.entries, **opened.on_request}
    check_modalities(place, [name], every)
    return read_entry(place, every[name], index_col)


def _entries_of_annotated(x: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the modalities of an AnnData or a MuData, and what it has on request."""
    modalities, on_request = element_names(x)
    return {name: (x, name) for name in modalities}, {name: (x, name) for name in on_request}


def _entries_of_arrays(arrays: MultimodalArrays | Batch) -> dict[str, Any]:
    """Returns the modalities of a data set, its masks and labels."""
    if arrays.weight is not None:
        raise ValueError("source.weight is given: tables have no weights, leave it out")
    labels = getattr(arrays, "labels", None)
    masks = {f"{MASK}{name}": x for name, x in (arrays.mask or {}).items()}
    return {**arrays.data, **masks, **({} if labels is None else {LABELS: labels})}


def place_of(source: str, name: str, entry: Any) -> str:
    """Returns the name of a modality for messages, such as ``rna in data/rna.csv``."""
    if isinstance(entry, str | os.PathLike):
        return f"{name} in {Path(os.fspath(entry))}"
    return f"source[{name!r}]" if source == "source" else f"{name} in {source}"
