"""The tables of a user, from any source: files, frames, arrays, matrices of single cells."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer

from mmvae_jax.checks import check_modalities
from mmvae_jax.tables.frames import IndexColumn
from mmvae_jax.tables.matching import match_rows
from mmvae_jax.tables.sources import open_source, place_of, read_entry
from mmvae_jax.tables.tables import LABELS, MASK, Tables, scan
from mmvae_jax.tables.values import UNKNOWN, SourceTable


def read_tables(
    source: Any,
    *,
    modalities: Sequence[str] | None = None,
    index_col: IndexColumn = None,
) -> Tables:
    """Reads the modalities of a source, and matches their rows.

    A source is one of these:

    - A dict by modality name. Values are arrays, structured arrays whose fields are columns, lists,
      frames and series of pandas or polars, sparse matrices, datasets of h5py, AnnData, or paths of
      .csv, .tsv, .parquet, .npy and .h5ad files. ``("cells.h5ad", "obsm/X_pca")`` is one element of
      a file of several, or of an AnnData.
    - A folder with one such file per modality, ``<name>.csv`` or the like.
    - An .npz file, an .h5 file with datasets at its top, an .h5ad or an .h5mu file.
    - An ``AnnData`` or ``MuData``, a ``MultimodalArrays`` or ``Batch``, and ``Tables``.

    An AnnData has the modality ``X``. ``modalities=("X", "obs/celltype")`` also reads a column,
    and ``layers/<name>`` and ``obsm/<name>`` are matrices.

    **Rows** are matched by their names: the index of a frame, the first of several columns if it is
    text without repetitions, ``obs_names``. The result has all names, in order of first appearance,
    and a row that a modality lacks is missing there. Sources without names match by position, and
    then all have one length.

    **Values** are numbers. A column of text, or of categories, becomes classes: integers in the
    sorted order of the names. A frame may have such columns among others. A row that is NaN
    throughout is missing, as is one that is False in the array ``mask/<name>``. A mask in the shape
    of the values marks single values. ``labels`` is a class per row, which only figures use.

    Arrays of .npy, .h5, .h5ad and .h5mu files stay in the file, and sparse matrices stay sparse.
    Nothing is unpickled.

    Args:
      source: see above.
      modalities: names of the modalities to read, in this order; all by default.
      index_col: name or position of the column of row names in CSV, TSV, Parquet and frames.

    Returns:
      The modalities, with the statistics of one pass over their values.

    Raises:
      FileNotFoundError: if a file or folder does not exist.
      ImportError: if a format needs a package that is missing; the message has the extra.
      ValueError: naming what is damaged, not a number, infinite, of another length, or repeated.

    Warns:
      UserWarning: of ignored files, and of a modality that shares no row with the others.

    >>> import pandas as pd
    >>> rna = pd.DataFrame({"TP53": [0.5, 1.5], "MYC": [2.0, 3.0]}, index=["p1", "p2"])
    >>> tissue = pd.Series(["lung", "brain"], index=["p2", "p3"])
    >>> tables = mm.read_tables({"rna": rna, "tissue": tissue})
    >>> tables.index.tolist(), tables.modalities["rna"].observed.tolist()
    (['p1', 'p2', 'p3'], [True, True, False])
    >>> tables.modalities["tissue"].classes, tables.modalities["tissue"].values.tolist()
    (('brain', 'lung'), [-1, 1, 0])
    """
    if isinstance(modalities, str):
        raise ValueError(f"modalities is {modalities!r}: give a tuple of names, ({modalities!r},)")
    names = None if modalities is None else tuple(modalities)
    if isinstance(source, Tables):
        return source if names is None else source.choose(names)
    opened = open_source(source).choose(names)
    parts = {
        name: read_entry(place_of(opened.place, name, entry), entry, index_col)
        for name, entry in opened.entries.items()
    }
    for name in [name for name in parts if name.startswith(MASK)]:
        _add_mask(parts, name, parts.pop(name))
    labels = parts.pop(LABELS, None)
    for part in parts.values():
        _check_size(part)
    index, parts, labels = match_rows(parts, labels)
    codes, label_names = (None, None) if labels is None else _label_codes(labels)
    tables = {name: scan(part, index) for name, part in parts.items()}
    return Tables(opened.place, tables, codes, index, label_names)


def _add_mask(parts: dict[str, SourceTable], name: str, mask: SourceTable) -> None:
    """Restricts the observed rows, or the observed values, of a modality to those of its mask.

    Args:
      parts: modalities by name; one is replaced.
      name: name of the mask.
      mask: True for rows that are observed, or for values, in the shape of the modality.
    """
    modality, values = name.removeprefix(MASK), np.asarray(mask.values[:])
    check_modalities(mask.place, [modality], parts)
    part = parts[modality]
    shape = part.values.shape
    if values.dtype != np.bool_ or values.shape not in (shape[:1], shape):
        raise ValueError(
            f"{mask.place} is {values.dtype}{list(values.shape)}: give one boolean for each of "
            f"the {shape[0]} rows of {modality!r}, or of its {list(shape)} values, True where it "
            "was observed"
        )
    if values.ndim == 1:
        values = values if part.mask is None else values & part.mask
        parts[modality] = dataclasses.replace(part, mask=values)
    else:
        parts[modality] = dataclasses.replace(part, values=np.where(values, part.values[:], np.nan))


def _check_size(part: SourceTable) -> None:
    if 0 in part.values.shape:
        raise ValueError(f"{part.place} has shape {part.values.shape}: give at least one value")


def _label_codes(labels: SourceTable) -> tuple[Integer[np.ndarray, " n"], tuple[str, ...] | None]:
    """Returns the class of each row, and the names of the classes of text."""
    codes = np.asarray(labels.values[:])
    codes = codes[:, 0] if codes.shape[1:] == (1,) else codes
    there = np.ones(len(codes), bool) if labels.mask is None else labels.mask
    if codes.dtype.kind == "f":
        there = there & ~np.isnan(codes)
    seen = codes[there]
    if codes.ndim != 1 or (seen != np.floor(seen)).any():
        raise ValueError(
            f"{labels.place} is {codes.dtype}{list(codes.shape)}: give one integer per row, or text"
        )
    whole = np.full(len(codes), UNKNOWN, np.int64)
    whole[there] = seen
    return whole, labels.classes
