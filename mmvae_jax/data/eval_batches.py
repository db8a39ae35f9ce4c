"""Every example once, in order, in batches of one size."""

from collections.abc import Callable
from dataclasses import dataclass

import grain
import numpy as np

from mmvae_jax.batch import AnyBatch, MultimodalArrays, as_arrays
from mmvae_jax.data.arrays import WHOLE, Shard, num_examples, pipeline, take


@dataclass(frozen=True)
class EvalBatches:
    """Batches that can be counted, and iterated over any number of times; of ``eval_batches``.

    Attributes:
      batch_at: gathers a batch.
      num_batches: how many there are.
    """

    batch_at: Callable[[int], MultimodalArrays]
    num_batches: int

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> grain.DatasetIterator[MultimodalArrays]:
        return iter(pipeline(self.batch_at, range(self.num_batches)))


def eval_batches(dataset: AnyBatch, batch_size: int, *, shard: Shard = WHOLE) -> EvalBatches:
    """Returns the examples in order, so that one compiled program serves all batches.

    Copies of the last example fill up the last batch. Their weight is 0 and their mask False in
    every modality: where nothing was observed, nothing is added to any metric. All batches have a
    mask and a weight, whether the data set has them or not.

    Args:
      dataset: examples to go through.
      batch_size: examples per batch, of all processes together.
      shard: which rows of each batch to give; all processes get as many batches.

    Raises:
      ValueError: for arrays that do not fit together, or a batch size that the processes cannot
        share.

    >>> dataset = MultimodalArrays({"x": np.array([5.0, 6.0, 7.0])})
    >>> for batch in eval_batches(dataset, 2):
    ...     print(batch.data["x"], batch.mask["x"], batch.weight)
    [5. 6.] [ True  True] [1. 1.]
    [7. 7.] [ True False] [1. 0.]
    """
    dataset = as_arrays(dataset)
    size, part = num_examples(dataset), shard.rows(batch_size)
    mask, weight = dataset.mask, dataset.weight
    if mask is None:
        mask = dict.fromkeys(dataset.data, np.ones(size, bool))
    if weight is None:
        weight = np.ones(size, np.float32)

    def batch_at(step: int) -> MultimodalArrays:
        places = np.arange(step * batch_size, (step + 1) * batch_size)[part]
        rows, is_real = np.minimum(places, size - 1), places < size
        return take(dataset, rows)._replace(
            mask={name: observed[rows] & is_real for name, observed in mask.items()},
            weight=weight[rows] * is_real,
        )

    return EvalBatches(batch_at, num_batches=-(-size // batch_size))
