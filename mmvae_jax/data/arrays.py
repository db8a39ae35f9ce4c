"""Checks of a data set, and examples of it by row."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from mmvae_jax.batch import AnyBatch, MultimodalArrays, as_arrays
from mmvae_jax.data.columns import Column, read_rows


def num_examples(dataset: AnyBatch) -> int:
    """Returns the number of examples, after checking that all arrays of the data set agree.

    Raises:
      ValueError: if there is no modality, or arrays differ in length or are not numeric. Also if
        ``mask`` is not one boolean vector per modality, or ``weight`` not one number per example.

    >>> from mmvae_jax.data import num_examples
    >>> num_examples(arrays)
    5
    """
    dataset = as_arrays(dataset)
    if not dataset.data:
        raise ValueError("data is empty: give one array per modality, {'image': array, ...}")
    arrays: dict[str, Column] = {f"data[{name!r}]": x for name, x in dataset.data.items()}
    if dataset.labels is not None:
        arrays["labels"] = dataset.labels
    if dataset.mask is not None:
        _check_mask(dataset.mask, dataset.data)
        arrays |= {f"mask[{name!r}]": x for name, x in dataset.mask.items()}
    if dataset.weight is not None:
        _check_weight(dataset.weight)
        arrays["weight"] = dataset.weight
    for field, array in arrays.items():
        if not array.shape:
            raise ValueError(f"{field} is a scalar: give an array whose first axis is the example")
        if np.dtype(array.dtype).kind not in "biuf":
            raise ValueError(
                f"{field} is an array of {array.dtype}: convert it to booleans, integers or floats "
                "(text: one-hot or token ids), because devices hold nothing else"
            )
    lengths = {field: array.shape[0] for field, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{field} has {length} rows" for field, length in lengths.items())
        raise ValueError(f"{listed}: give each array one row per example")
    return next(iter(lengths.values()))


def take(dataset: AnyBatch, indices: Int[np.ndarray, " b"]) -> MultimodalArrays:
    """Returns the examples at ``indices``, in that order; indices may repeat.

    Raises:
      IndexError: if an index is not one of ``-n, ..., n - 1``.

    >>> from mmvae_jax.data import take
    >>> take(arrays, np.array([4, 0, 0])).data["sound"].shape
    (3, 4)
    """
    dataset = as_arrays(dataset)

    def rows(columns: Mapping[str, Column]) -> dict[str, Any]:
        return {name: read_rows(column, indices) for name, column in columns.items()}

    return MultimodalArrays(
        data=rows(dataset.data),
        labels=None if dataset.labels is None else dataset.labels[indices],
        mask=None if dataset.mask is None else rows(dataset.mask),
        weight=None if dataset.weight is None else dataset.weight[indices],
    )


def _check_mask(mask: Mapping[str, np.ndarray], data: Mapping[str, Column]) -> None:
    if mask.keys() != data.keys():
        raise ValueError(
            f"mask is a dict of {sorted(mask)}: give one mask to each modality of {sorted(data)}"
        )
    for name, observed in mask.items():
        if observed.dtype != np.bool_ or observed.ndim != 1:
            raise ValueError(
                f"mask[{name!r}] is {observed.dtype}{list(observed.shape)}: "
                "give one boolean per example, True where the modality was observed"
            )


def _check_weight(weight: np.ndarray) -> None:
    if weight.dtype.kind not in "biuf" or weight.ndim != 1:
        raise ValueError(
            f"weight is {weight.dtype}{list(weight.shape)}: give one number per example, 1 for an "
            "example that counts in full"
        )
    wrong = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if wrong.size:
        raise ValueError(
            f"weight[{wrong[0]}] is {weight[wrong[0]]}: give finite numbers of at least 0"
        )
