"""Pairs of examples by label, as row numbers: many pairings share one copy of the data."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_count
from mmvae_jax.data.columns import IndexedColumn
from mmvae_jax.inputs.array_likes import as_array


def pair_by_label(
    labels: Mapping[str, Int[np.ndarray, " _"]],
    num_pairings: int,
    *,
    seed: int | Sequence[int],
    max_per_class: int = 10_000,
) -> dict[str, Int[np.ndarray, " n"]]:
    """Returns row numbers that pair examples of the same class across modalities.

    Each class contributes its first rows, as many as every modality has and at most
    ``max_per_class``. Each pairing shuffles them in every modality independently. MNIST-SVHN is
    made in this way (Shi et al., 2019, ``make-mnist-svhn-idx.py``), with another random generator.

    Args:
      labels: class of every row, by modality.
      num_pairings: number of times that each row is used.
      seed: seed of the shuffling.
      max_per_class: largest number of rows per class.

    Returns:
      Rows ``[n]`` by modality, ordered by class and then by pairing.

    Raises:
      ValueError: if modalities have different classes, or for a number below 1.

    >>> from mmvae_jax.data import pair_by_label
    >>> labels = {"left": np.array([0, 0, 1]), "right": np.array([1, 0, 1, 1])}
    >>> rows = pair_by_label(labels, num_pairings=2, seed=0)
    >>> labels["left"][rows["left"]].tolist(), labels["right"][rows["right"]].tolist()
    ([0, 0, 1, 1], [0, 0, 1, 1])
    """
    num_pairings = check_count("num_pairings", num_pairings)
    max_per_class = check_count("max_per_class", max_per_class)
    labels = {name: as_array(f"labels[{name!r}]", values) for name, values in labels.items()}
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


def pair_images(
    sources: Mapping[str, MultimodalArrays],
    num_pairings: int,
    *,
    seed: int | Sequence[int],
    max_per_class: int = 10_000,
) -> MultimodalArrays:
    """Returns examples of one image per source, paired by class with ``pair_by_label``.

    Args:
      sources: by the name of the new modality, a data set with modality ``image`` and labels.
      num_pairings: number of times that each image is used.
      seed: seed of the shuffling.
      max_per_class: largest number of images per class.

    Returns:
      Images as ``IndexedColumn``, in memory once for any number of pairings, and shared labels.

    Raises:
      ValueError: if sources have different classes, or for a number below 1.
    """
    labels = {name: np.asarray(source.labels) for name, source in sources.items()}
    rows = pair_by_label(labels, num_pairings, seed=seed, max_per_class=max_per_class)
    data = {name: IndexedColumn(sources[name].data["image"], index) for name, index in rows.items()}
    first = next(iter(rows))
    return MultimodalArrays(data, labels[first][rows[first]])


def pairs_digest(dataset: MultimodalArrays) -> str:
    """Returns a SHA-256 that two data sets share only if they pair the same rows.

    It hashes the name of every modality that is an ``IndexedColumn`` and its row numbers, as
    little-endian 64-bit integers. The values in the rows do not count.

    Raises:
      ValueError: if no modality is an ``IndexedColumn``.

    >>> from mmvae_jax.data import IndexedColumn, pairs_digest
    >>> column = IndexedColumn(np.zeros(3), np.array([2, 0, 1, 1]))
    >>> pairs_digest(mm.MultimodalArrays({"x": column}))[:8]
    '4fc95b14'
    """
    columns = dataset.data.items()
    paired = {name: column for name, column in columns if isinstance(column, IndexedColumn)}
    if not paired:
        raise ValueError(
            f"data is a dict of {list(dataset.data)} without an IndexedColumn: give a data set "
            "made by pairing"
        )
    digest = hashlib.sha256()
    for name, column in sorted(paired.items()):
        digest.update(f"{name} {len(column)}\n".encode())
        digest.update(column.index.astype("<i8").tobytes())
    return digest.hexdigest()
