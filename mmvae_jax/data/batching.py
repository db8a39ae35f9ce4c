"""Batches of a data set: shuffled for training, in order for evaluation."""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import grain
import numpy as np
from jaxtyping import Bool, Int

from mmvae_jax.batch import AnyBatch, MultimodalArrays, as_arrays
from mmvae_jax.checks import check_at_least, check_count
from mmvae_jax.data.arrays import num_examples, take
from mmvae_jax.inputs.masks import over_axes

T = TypeVar("T")
#: A function of a batch and the numbers of its rows, which raises an error where a value is wrong.
Check = Callable[[MultimodalArrays, Int[np.ndarray, " b"]], None]


@dataclass(frozen=True)
class Shard:
    """The part of every batch that one of several processes holds.

    Attributes:
      index: index of the process, from 0 to ``count - 1``.
      count: number of processes.
    """

    index: int = 0
    count: int = 1

    def rows(self, batch_size: int) -> slice:
        """Returns the rows of a batch that belong to the shard.

        Raises:
          ValueError: if ``count`` does not divide ``batch_size``, or ``index`` is out of range.

        >>> from mmvae_jax.data import Shard
        >>> Shard(1, 4).rows(128)
        slice(32, 64, None)
        """
        if not 0 <= self.index < self.count:
            raise ValueError(f"shard.index is {self.index}: give 0 to shard.count - 1 of {self}")
        if batch_size < 1 or batch_size % self.count:
            raise ValueError(
                f"batch_size is {batch_size}: give a positive multiple of shard.count={self.count}"
            )
        size = batch_size // self.count
        return slice(self.index * size, (self.index + 1) * size)


#: The whole batch, for a single process.
WHOLE = Shard()


def batches(
    dataset: AnyBatch,
    batch_size: int,
    *,
    seed: int,
    num_steps: int | None = None,
    start: int = 0,
    shard: Shard = WHOLE,
    check: Check | None = None,
) -> grain.IterDataset[MultimodalArrays]:
    """Returns the batches of steps ``start, ..., num_steps - 1``, shuffled anew every epoch.

    Batch ``s`` holds rows ``permutation[seed, epoch][i * batch_size : (i + 1) * batch_size]`` with
    ``epoch, i = divmod(s, n // batch_size)`` for ``n`` examples. It depends on the seed and the
    step only, so a run that resumes at step ``s`` sees the batches of an uninterrupted run. The
    incomplete batch at the end of an epoch is dropped.

    An item of the pipeline is a whole batch, gathered on demand; ``prefetch_to_device`` gathers
    ahead. Iteration gives ``MultimodalArrays``. ``iter(...)`` gives a grain iterator with a
    JSON-serialisable ``get_state()`` and a ``set_state(state)``. The state counts batches from
    ``start``, so resume from it with the same ``start``.

    Args:
      dataset: examples to draw from.
      batch_size: examples per step, summed over all processes.
      seed: seed of the shuffling.
      num_steps: step to stop before; None for an endless pipeline.
      start: first step.
      shard: rows of each batch to return. The rows of all processes, in order, make up the batch
        of a single process.
      check: function of each batch and the numbers of its rows, called when the batch is read.

    Raises:
      ValueError: for arrays that do not fit together, a negative seed, or a start outside
        ``0, ..., num_steps``. Also for a batch size outside ``1, ..., n``, or one that
        ``shard.count`` does not divide.

    >>> from mmvae_jax.data import batches
    >>> [len(batch.data["sound"]) for batch in batches(arrays, 2, seed=0, num_steps=3)]
    [2, 2, 2]
    """
    dataset = as_arrays(dataset)
    batch_size = check_count("batch_size", batch_size)
    size, part = num_examples(dataset), shard.rows(batch_size)
    if batch_size > size:
        raise ValueError(f"batch_size is {batch_size}: give 1 to {size}, the number of examples")
    start = check_at_least("start", start, 0)
    stop = sys.maxsize if num_steps is None else check_at_least("num_steps", num_steps, 0)
    if start > stop:
        raise ValueError(f"start is {start}: give a step from 0 to num_steps={num_steps}")
    seed = check_at_least("seed", seed, 0)

    def batch_at(step: int) -> MultimodalArrays:
        epoch, i = divmod(step, size // batch_size)
        rows = _permutation(size, seed, epoch)[i * batch_size : (i + 1) * batch_size]
        return _checked(take(dataset, rows[part]), rows[part], check)

    return pipeline(batch_at, range(start, stop))


@functools.lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> Int[np.ndarray, " b"]:
    permutation = np.random.default_rng((seed, epoch)).permutation(size)
    permutation.flags.writeable = False  # All callers share it through the cache.
    return permutation


@dataclass(frozen=True)
class EvalBatches:
    """Batches of ``eval_batches``; any number of iterations over them give the same.

    Attributes:
      batch_at: function from the index of a batch to the batch.
      num_batches: number of batches.
    """

    batch_at: Callable[[int], MultimodalArrays]
    num_batches: int

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> grain.DatasetIterator[MultimodalArrays]:
        return iter(pipeline(self.batch_at, range(self.num_batches)))


def eval_batches(
    dataset: AnyBatch, batch_size: int, *, shard: Shard = WHOLE, check: Check | None = None
) -> EvalBatches:
    """Returns all examples in order, in batches of one size and thus for one compiled program.

    The last batch is filled up with copies of the last example, whose weight is 0 and whose mask is
    False in every modality: they add nothing to any metric. All batches have a mask and a weight,
    even if the data set has none.

    Args:
      dataset: examples to iterate over.
      batch_size: examples per batch, summed over all processes.
      shard: rows of each batch to return; all processes get equally many batches.
      check: function of each batch and the numbers of its rows, called when the batch is read.

    Raises:
      ValueError: for arrays that do not fit together, or a batch size that ``shard.count`` does
        not divide.

    >>> from mmvae_jax.data import eval_batches
    >>> dataset = mm.MultimodalArrays({"x": np.array([5.0, 6.0, 7.0])})
    >>> for batch in eval_batches(dataset, 2):
    ...     print(batch.data["x"], batch.mask["x"], batch.weight)
    [5. 6.] [ True  True] [1. 1.]
    [7. 7.] [ True False] [1. 0.]
    """
    dataset = as_arrays(dataset)
    batch_size = check_count("batch_size", batch_size)
    size, part = num_examples(dataset), shard.rows(batch_size)
    mask, weight = dataset.mask, dataset.weight
    if mask is None:
        mask = dict.fromkeys(dataset.data, np.ones(size, bool))
    if weight is None:
        weight = np.ones(size, np.float32)

    def batch_at(step: int) -> MultimodalArrays:
        places = np.arange(step * batch_size, (step + 1) * batch_size)[part]
        rows, is_real = np.minimum(places, size - 1), places < size
        batch = take(dataset, rows)._replace(
            mask={name: _hidden(observed[rows], ~is_real) for name, observed in mask.items()},
            weight=weight[rows] * is_real,
        )
        return _checked(batch, rows, check)

    return EvalBatches(batch_at, num_batches=-(-size // batch_size))


def _checked(
    batch: MultimodalArrays, rows: Int[np.ndarray, " b"], check: Check | None
) -> MultimodalArrays:
    if check is not None:
        check(batch, rows)
    return batch


def pipeline(batch_at: Callable[[int], T], steps: range) -> grain.IterDataset[T]:
    """Returns ``batch_at(step)`` for all steps, computed on demand.

    >>> from mmvae_jax.data.batching import pipeline
    >>> list(pipeline(lambda step: 10 * step, range(3, 6)))
    [30, 40, 50]
    """
    # Without grain's threads, which delayed every step: handing over a batch costs as much as
    # gathering it. The thread of ``prefetch_to_device`` both gathers and transfers.
    on_demand = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    numbers = grain.MapDataset.range(steps.start, steps.stop, steps.step)
    return numbers.map(batch_at).to_iter_dataset(on_demand)


def _hidden(
    mask: Bool[np.ndarray, "b *entries"], rows: Bool[np.ndarray, " b"]
) -> Bool[np.ndarray, "b *entries"]:
    """Returns a mask that is False throughout in these rows."""
    return mask & ~over_axes(rows, mask.ndim)
