"""Checks of a data set, and examples of it by row."""

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from mmvae_jax.batch import AnyBatch, MultimodalArrays, as_arrays
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.data.columns import Column, read_rows
from mmvae_jax.inputs.value_checks import check_values

#: Size of the parts in which a data set is checked, small enough for a cache.
PART_BYTES = 2**22


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
    if not isinstance(dataset.data, Mapping):
        raise ValueError(f"data is a {type(dataset.data).__name__}: give a dict by modality name")
    if not dataset.data:
        raise ValueError("data is empty: give one array per modality, {'image': array, ...}")
    arrays: dict[str, Column] = {
        f"data[{name!r}]{jax.tree_util.keystr(path)}": leaf
        for name, x in dataset.data.items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(x)
    }
    if dataset.labels is not None:
        arrays["labels"] = dataset.labels
    if dataset.mask is not None:
        _check_mask(dataset.mask, dataset.data)
        arrays |= {f"mask[{name!r}]": x for name, x in dataset.mask.items()}
    if dataset.weight is not None:
        _check_weight(dataset.weight)
        arrays["weight"] = dataset.weight
    for field, array in arrays.items():
        if not hasattr(array, "shape"):
            raise ValueError(f"{field} is a {type(array).__name__}: give an array")
        if not array.shape:
            raise ValueError(f"{field} is a scalar: give an array whose first axis is the example")
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

    def rows(columns: Any) -> Any:
        return jax.tree.map(lambda column: read_rows(column, indices), columns)

    # By name, because jax.tree.map would sort the modalities.
    data = {name: rows(x) for name, x in dataset.data.items()}
    mask = None if dataset.mask is None else {name: rows(x) for name, x in dataset.mask.items()}
    return MultimodalArrays(data, rows(dataset.labels), mask, rows(dataset.weight))


def check_values_in_memory(config: MMVAEConfig, dataset: AnyBatch, *, field: str) -> None:
    """Checks the values of a data set that are in memory, in parts, before anything is computed.

    Raises:
      ValueError: as ``check_values``.
    """
    dataset = as_arrays(dataset)
    held = {name: x for name, x in dataset.data.items() if all(map(_in_memory, jax.tree.leaves(x)))}
    if not held:
        return
    num_rows = jax.tree.leaves(held)[0].shape[0]
    row_bytes = sum(x.nbytes for x in jax.tree.leaves(held)) // max(num_rows, 1)
    size = max(1, PART_BYTES // max(row_bytes, 1))
    for start in range(0, num_rows, size):
        rows = np.arange(start, min(start + size, num_rows))
        data, mask = jax.tree.map(itemgetter(slice(start, start + size)), (held, dataset.mask))
        check_values(config, MultimodalArrays(data, mask=mask), rows, field=field)


def _check_mask(mask: Mapping[str, np.ndarray], data: Mapping[str, Column]) -> None:
    if not isinstance(mask, Mapping) or mask.keys() != data.keys():
        raise ValueError(
            f"mask is a {type(mask).__name__} of {sorted(mask)}: give one mask to each modality of "
            f"{sorted(data)}"
        )
    for name, observed in mask.items():
        shape = tuple(data[name].shape[1 : observed.ndim]) if hasattr(data[name], "shape") else ()
        if observed.dtype != np.bool_ or not observed.ndim or observed.shape[1:] != shape:
            raise ValueError(
                f"mask[{name!r}] is {observed.dtype}{list(observed.shape)}: give one boolean per "
                "example, or one per entry of its data, True where observed"
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


def _in_memory(x: Any) -> bool:
    """Returns True for arrays of NumPy and JAX, and False for those mapped from a file."""
    return isinstance(x, jax.Array) or (isinstance(x, np.ndarray) and not _is_mapped(x))


def _is_mapped(x: np.ndarray) -> bool:
    """Returns True for a memory-mapped array and for views of one."""
    return isinstance(x, np.memmap) or (isinstance(x.base, np.ndarray) and _is_mapped(x.base))
