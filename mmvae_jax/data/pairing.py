"""Pairs of examples by label, kept as row numbers: many pairings of one copy of the data."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data.sources import Column


class Rows:
    """A column whose row ``i`` is row ``index[i]`` of another column, read when it is asked for.

    Rows may repeat: a column costs four or eight bytes for each, whatever its values are.

    Args:
      column: where the values are.
      index: rows of it, ``[n]`` integers of any size.

    Raises:
      ValueError: if the index is no vector of integers.
      IndexError: if one of them is not in ``0, ..., len(column) - 1``.

    >>> column = Rows(np.array([0.0, 0.1, 0.2]), np.array([2, 2, 0, 1]))
    >>> column[1:].tolist()
    [0.2, 0.0, 0.1]
    """

    def __init__(self, column: Column, index: np.ndarray):
        if index.ndim != 1 or index.dtype.kind not in "iu":
            raise ValueError(
                f"index is {index.dtype}{list(index.shape)}: give a vector of integers, rows of "
                "the column"
            )
        if index.size and not 0 <= index.min() <= index.max() < len(column):
            raise IndexError(
                f"index goes from {index.min()} to {index.max()}: the column has the rows 0 to "
                f"{len(column) - 1}"
            )
        self.column = column
        self.index = index
        self.shape = (len(index), *column.shape[1:])
        self.dtype: np.dtype[Any] = column.dtype

    def __repr__(self) -> str:
        return f"Rows({len(self)} of {len(self.column)}): {self.dtype}{list(self.shape)}"

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Any, /) -> Any:
        """Returns the values ``[b, *dim]`` of a vector of rows, in any order, or of a slice."""
        return self.column[self.index[rows]]


def pair_by_label(
    labels: Mapping[str, Int[np.ndarray, " _"]],
    num_pairings: int,
    *,
    seed: int | Sequence[int],
    max_per_class: int = 10_000,
) -> dict[str, Int[np.ndarray, " n"]]:
    """Returns which rows of every modality belong together, examples of the same class.

    A class takes part with as many of its first rows as every modality has, ``max_per_class`` at
    most. Each of the pairings shuffles them, in every modality by itself. This is how
    MNIST-SVHN is made (Shi et al., 2019, ``make-mnist-svhn-idx.py``), with another random
    generator.

    Args:
      labels: class of every row, for each modality.
      num_pairings: how often a row is used.
      seed: of the shuffling.
      max_per_class: rows of a class that are used.

    Returns:
      Rows ``[n]`` for each modality, class by class and pairing by pairing.

    Raises:
      ValueError: if modalities have different classes, or for a number below 1.
    """
    for field, value in (("num_pairings", num_pairings), ("max_per_class", max_per_class)):
        if value < 1:
            raise ValueError(f"{field}={value}: choose 1 or more")
    classes = {name: np.unique(values).tolist() for name, values in labels.items()}
    shared = next(iter(classes.values()))
    if any(found != shared for found in classes.values()):
        raise ValueError(f"labels have the classes {classes}: give the same ones to all modalities")
    rng = np.random.default_rng(seed)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in labels}
    for label in shared:
        rows = {name: np.flatnonzero(values == label) for name, values in labels.items()}
        size = min(max_per_class, *map(len, rows.values()))
        for name, found in rows.items():
            pairings = np.tile(found[:size].astype(np.int32), (num_pairings, 1))
            parts[name].append(rng.permuted(pairings, axis=1).ravel())
    return {name: np.concatenate(part) for name, part in parts.items()}


def pairs_digest(dataset: MultimodalArrays) -> str:
    """Returns a SHA-256 that two data sets share only if they pair the same rows.

    It is that of every modality's name and the row numbers of its ``Rows`` as little-endian 64-bit
    integers; what the rows hold is not looked at.

    Raises:
      ValueError: if no modality is a ``Rows``.
    """
    paired = {name: column for name, column in dataset.data.items() if isinstance(column, Rows)}
    if not paired:
        raise ValueError(
            f"data of {list(dataset.data)} has no column that is a Rows: give a data set that was "
            "made by pairing"
        )
    digest = hashlib.sha256()
    for name, column in sorted(paired.items()):
        digest.update(f"{name} {len(column)}\n".encode())
        digest.update(column.index.astype("<i8").tobytes())
    return digest.hexdigest()
