"""Multi-modal data sets held in memory, and batches of them as a function of the step."""

import functools
from typing import NamedTuple

import grain
import jax
import numpy as np
from jaxtyping import Int


class MultimodalArrays(NamedTuple):
    """Examples of several modalities, row `b` of every array being example `b`.

    Attributes:
        data: one array `[b, *input_dim]` per modality.
        labels: class of every example, `[b]`; None if unknown.
        mask: True where the modality was observed, `[b]` per modality; None if all were.
    """

    data: dict[str, np.ndarray]
    labels: np.ndarray | None = None
    mask: dict[str, np.ndarray] | None = None


def num_examples(dataset: MultimodalArrays) -> int:
    """Returns the number of examples, which all arrays of the data set must share.

    Raises:
        ValueError: if there is no modality, if arrays differ in length, if an array is not
            numeric, or if the mask is not one boolean vector per modality.
    """
    if not dataset.data:
        raise ValueError("data is empty: give one array per modality, {'image': array, ...}")
    arrays = {f"data[{name!r}]": array for name, array in dataset.data.items()}
    if dataset.labels is not None:
        arrays["labels"] = dataset.labels
    if dataset.mask is not None:
        _check_mask(dataset.mask, dataset.data)
        arrays |= {f"mask[{name!r}]": array for name, array in dataset.mask.items()}
    for field, array in arrays.items():
        if array.ndim == 0:
            raise ValueError(f"{field} is a scalar: give an array whose first axis is the example")
        if array.dtype.kind not in "biuf":
            raise ValueError(
                f"{field} has dtype {array.dtype}, which no device can hold: "
                "convert it to booleans, integers or floats (text: one-hot or token ids)"
            )
    lengths = {field: len(array) for field, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{field} has {length}" for field, length in lengths.items())
        raise ValueError(f"arrays differ in length: {listed}; give one row per example to each")
    return next(iter(lengths.values()))


def _check_mask(mask: dict[str, np.ndarray], data: dict[str, np.ndarray]) -> None:
    if mask.keys() != data.keys():
        raise ValueError(
            f"mask names {sorted(mask)} and data names {sorted(data)}: give one mask per modality"
        )
    for name, observed in mask.items():
        if observed.dtype != np.bool_ or observed.ndim != 1:
            raise ValueError(
                f"mask[{name!r}] is {observed.dtype}{list(observed.shape)}: "
                "give one boolean per example, True where the modality was observed"
            )


def take(dataset: MultimodalArrays, indices: Int[np.ndarray, " b"]) -> MultimodalArrays:
    """Returns the examples at `indices`, in that order (indices may repeat)."""
    return jax.tree.map(lambda array: array[indices], dataset)


def batches(
    dataset: MultimodalArrays, batch_size: int, *, seed: int, num_steps: int, start: int = 0
) -> grain.IterDataset[MultimodalArrays]:
    """Returns the batches of steps `start, ..., num_steps - 1`, shuffled anew every epoch.

    Batch `s` holds rows `permutation[seed, epoch][i * batch_size : (i + 1) * batch_size]` with
    `epoch, i = divmod(s, len(dataset) // batch_size)`: it depends on the seed and the step alone,
    so a run that starts again at step `s` sees what it would have seen uninterrupted. The
    incomplete batch at the end of an epoch is dropped.

    One item of the pipeline is a whole batch, gathered ahead of its use in a thread. Iterating
    gives `MultimodalArrays`; `iter(...)` gives a grain iterator, whose state can be saved.

    Raises:
        ValueError: for arrays that do not fit together, a batch size outside
            `1, ..., len(dataset)`, a negative seed, or a start outside `0, ..., num_steps`.
    """
    size = num_examples(dataset)
    if not 1 <= batch_size <= size:
        raise ValueError(f"batch_size={batch_size}: choose 1 to {size}, the number of examples")
    if not 0 <= start <= num_steps:
        raise ValueError(f"start={start}: choose a step from 0 to num_steps={num_steps}")
    if seed < 0:
        raise ValueError(f"seed={seed}: choose a non-negative integer")

    def batch_at(step: int) -> MultimodalArrays:
        epoch, i = divmod(step, size // batch_size)
        rows = _permutation(size, seed, epoch)[i * batch_size : (i + 1) * batch_size]
        return take(dataset, rows)

    # A gather is one memory copy, which a single thread keeps ahead of any training step.
    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    return grain.MapDataset.range(start, num_steps).map(batch_at).to_iter_dataset(ahead)


@functools.lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> Int[np.ndarray, " b"]:
    permutation = np.random.default_rng((seed, epoch)).permutation(size)
    permutation.flags.writeable = False  # Shared by all callers through the cache.
    return permutation
