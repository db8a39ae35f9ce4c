"""Matrices and columns of AnnData and MuData, in memory or in .h5ad and .h5mu files."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from mmvae_jax.tables.frames import is_frame, table_of_frame
from mmvae_jax.tables.packages import damage_named, import_for, library
from mmvae_jax.tables.values import SourceTable, table_of_values

#: Matrices by row of an AnnData, by the name of the attribute.
GROUPS = ("layers", "obsm")


class AnnotatedFile:
    """A group of an .h5ad or .h5mu file with the attributes of an ``AnnData``.

    Matrices stay in the file.

    Args:
      place: name of the file, for messages.
      group: group of h5py in the format of an AnnData or a MuData.

    Attributes:
      X: matrix, or None.
      layers: other matrices of the same columns.
      obsm: matrices of other columns.
      obs: frame of the rows.
      var: frame of the columns of ``X``.
      mod: modalities of a MuData.
    """

    def __init__(self, place: str, group: Any):
        self._read = import_for(place, "anndata.io", "anndata")
        self.X = self._value(group["X"]) if "X" in group else None
        self.obs, self.var = (self._value(group[name]) for name in ("obs", "var"))
        self.layers, self.obsm = (
            {name: self._value(x) for name, x in group[field].items()} if field in group else {}
            for field in GROUPS
        )
        mod = group.get("mod", {})
        order = list(mod.attrs.get("mod-order", mod)) if mod else []
        self.mod = {name: AnnotatedFile(place, mod[name]) for name in order}

    def _value(self, node: Any) -> Any:
        """Returns a dense matrix as its dataset, a sparse one without its values, else a frame."""
        if hasattr(node, "shape"):
            return node
        if node.attrs.get("encoding-type") in ("csr_matrix", "csc_matrix"):
            return self._read.sparse_dataset(node)
        return self._read.read_elem(node)


def open_annotated(file: Path) -> AnnotatedFile:
    """Opens an .h5ad or .h5mu file, which stays open as long as its matrices are used.

    Raises:
      ImportError: if anndata is missing.
      ValueError: if the file is damaged.
    """
    import_for(str(file), "anndata", "anndata")
    h5py = import_for(str(file), "h5py", "anndata")
    with damage_named(str(file)):
        return AnnotatedFile(str(file), h5py.File(file, "r"))


def is_annotated(x: Any) -> bool:
    """Returns True for an AnnData, a MuData or an opened file of one."""
    is_object = library(x) in ("anndata", "mudata") and hasattr(x, "obs")
    return isinstance(x, AnnotatedFile) or is_object


def element_names(x: Any) -> tuple[list[str], list[str]]:
    """Returns the names of the modalities, and those of elements that are read on request.

    The modalities of a MuData are its own, and that of an AnnData is ``X``. Other elements are
    ``layers/<name>``, ``obsm/<name>`` and ``obs/<name>``; ``<modality>/obsm/<name>`` in a MuData.
    """
    columns = [f"obs/{name}" for name in x.obs.columns]
    inner = getattr(x, "mod", None)
    if inner:
        parts = {name: element_names(part) for name, part in inner.items()}
        requests = [f"{name}/{element}" for name, (_, more) in parts.items() for element in more]
        return list(parts), [*columns, *requests]
    # Newer versions of anndata list X among the layers, under the name None.
    matrices = [f"{g}/{name}" for g in GROUPS for name in getattr(x, g) if name is not None]
    return ["X"] if x.X is not None else [], [*matrices, *columns]


def read_element(place: str, x: Any, element: str) -> SourceTable:
    """Returns a matrix or a column of an AnnData or a MuData, with names of rows and columns.

    Args:
      place: name of the modality, for messages.
      x: AnnData, MuData or an opened file of one.
      element: one of ``element_names``.
    """
    modalities, requests = element_names(x)
    if element not in (*modalities, *requests):
        raise ValueError(f"{place} is {element!r}: choose one of {[*modalities, *requests][:30]}")
    first, _, rest = element.partition("/")
    if first in (getattr(x, "mod", None) or {}):
        return read_element(place, x.mod[first], rest or "X")
    if first == "obs":
        return table_of_frame(place, x.obs[rest])
    with damage_named(place):
        value = x.X if first == "X" else getattr(x, first)[rest]
    if is_frame(value):
        return table_of_frame(place, value)
    table = table_of_values(place, value)
    features = None if first == "obsm" else tuple(map(str, x.var.index))
    return dataclasses.replace(table, index=_names(x.obs.index), features=features)


def _names(index: Any) -> Shaped[np.ndarray, " n"]:
    return np.array(index.map(str), dtype=str)
