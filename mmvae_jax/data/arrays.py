"""Multi-modal data sets, and batches of them as a function of the step."""

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import grain
import numpy as np
from jaxtyping import Int

from mmvae_jax.batch import AnyBatch, MultimodalArrays, as_arrays
from mmvae_jax.data.sources import Column

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """The part of every batch that one of several processes holds.

    Attributes:
      index: which of the processes.
      count: how many there are.
    """

    index: int = 0
    count: int = 1

    def rows(self, batch_size: int) -> slice:
        """Returns which of the ``batch_size`` rows of a batch are its own.

        Raises:
          ValueError: if the processes cannot share them equally, or there is no such process.

        >>> Shard(1, 4).rows(128)
        slice(32, 64, None)
        """
        if not 0 <= self.index < self.count:
            raise ValueError(f"shard.index={self.index}: choose 0 to shard.count - 1 of {self}")
        if batch_size < 1 or batch_size % self.count:
            raise ValueError(
                f"batch_size={batch_size}: choose a positive multiple of shard.count={self.count}"
            )
        size = batch_size // self.count
        return slice(self.index * size, (self.index + 1) * size)


#: The whole batch, for the only process.
WHOLE = Shard()


def num_examples(dataset: AnyBatch) -> int:
    """Returns the number of examples, which all arrays of the data set must share.

    Raises:
      ValueError: if there is no modality, if arrays differ in length, if an array is not
        numeric, or if the mask is not one boolean vector per modality.

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
        arrays |= {f"mask[{name!r}]": array for name, array in dataset.mask.items()}
    if dataset.weight is not None:
        _check_weight(dataset.weight)
        arrays["weight"] = dataset.weight
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


def _check_mask(mask: Mapping[str, np.ndarray], data: Mapping[str, Column]) -> None:
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


def _check_weight(weight: np.ndarray) -> None:
    if weight.dtype.kind not in "biuf" or weight.ndim != 1:
        raise ValueError(
            f"weight is {weight.dtype}{list(weight.shape)}: give one number per example, 1 for one "
            "that counts in full"
        )
    wrong = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if wrong.size:
        raise ValueError(
            f"weight[{wrong[0]}] is {weight[wrong[0]]}: give finite numbers of at least 0"
        )


def take(dataset: AnyBatch, indices: Int[np.ndarray, " b"]) -> MultimodalArrays:
    """Returns the examples at ``indices``, in that order (indices may repeat).

    >>> take(arrays, np.array([4, 0, 0])).data["sound"].shape
    (3, 4)
    """
    dataset = as_arrays(dataset)

    def rows(columns: Mapping[str, Column]) -> dict[str, Any]:
        return {name: column[indices] for name, column in columns.items()}

    return MultimodalArrays(
        data=rows(dataset.data),
        labels=None if dataset.labels is None else dataset.labels[indices],
        mask=None if dataset.mask is None else rows(dataset.mask),
        weight=None if dataset.weight is None else dataset.weight[indices],
    )


def batches(
    dataset: AnyBatch,
    batch_size: int,
    *,
    seed: int,
    num_steps: int | None = None,
    start: int = 0,
    shard: Shard = WHOLE,
) -> grain.IterDataset[MultimodalArrays]:
    """Returns the batches of steps ``start, ..., num_steps - 1``, shuffled anew every epoch.

    Batch ``s`` holds rows ``permutation[seed, epoch][i * batch_size : (i + 1) * batch_size]`` with
    ``epoch, i = divmod(s, len(dataset) // batch_size)``: it depends on the seed and the step alone,
    so a run that starts again at step ``s`` sees what it would have seen uninterrupted. The
    incomplete batch at the end of an epoch is dropped.

    One item of the pipeline is a whole batch, gathered when it is asked for; ``prefetch_to_device``
    gathers ahead. Iterating gives ``MultimodalArrays``; ``iter(...)`` gives a grain iterator, whose
    ``get_state()`` JSON can hold and whose ``set_state(state)`` goes on from there. The state
    counts batches from ``start``: take it up with the same ``start``.

    Args:
      dataset: examples to choose from.
      batch_size: examples per step, of all processes together.
      seed: of the shuffling.
      num_steps: where to end; None goes on for ever.
      start: first step.
      shard: which rows of each batch to give. Those of all processes, one after the other, are
        the batch that a single process would see.

    Raises:
      ValueError: for arrays that do not fit together, a batch size that is outside
        ``1, ..., len(dataset)`` or that the processes cannot share, a negative seed, or a start
        outside ``0, ..., num_steps``.

    >>> [len(batch.data["sound"]) for batch in batches(arrays, 2, seed=0, num_steps=3)]
    [2, 2, 2]
    """
    dataset = as_arrays(dataset)
    size, part = num_examples(dataset), shard.rows(batch_size)
    if batch_size > size:
        raise ValueError(f"batch_size={batch_size}: choose 1 to {size}, the number of examples")
    stop = sys.maxsize if num_steps is None else num_steps
    if not 0 <= start <= stop:
        raise ValueError(f"start={start}: choose a step from 0 to num_steps={num_steps}")
    if seed < 0:
        raise ValueError(f"seed={seed}: choose a non-negative integer")

    def batch_at(step: int) -> MultimodalArrays:
        epoch, i = divmod(step, size // batch_size)
        rows = _permutation(size, seed, epoch)[i * batch_size : (i + 1) * batch_size]
        return take(dataset, rows[part])

    return pipeline(batch_at, range(start, stop))


@functools.lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> Int[np.ndarray, " b"]:
    permutation = np.random.default_rng((seed, epoch)).permutation(size)
    permutation.flags.writeable = False  # Shared by all callers through the cache.
    return permutation


def pipeline(batch_at: Callable[[int], T], steps: range) -> grain.IterDataset[T]:
    """Returns ``batch_at(step)`` of every step, computed when it is asked for.

    >>> list(pipeline(lambda step: 10 * step, range(3, 6)))
    [30, 40, 50]
    """
    # Without grain's threads, which made every step wait longer: handing a batch over costs as
    # much as gathering it. `prefetch_to_device` has one thread for gathering and the transfer.
    when_asked = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    numbers = grain.MapDataset.range(steps.start, steps.stop, steps.step)
    return numbers.map(batch_at).to_iter_dataset(when_asked)
