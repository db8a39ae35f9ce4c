"""The input pipeline of a training run: batches on the device ahead of their step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import grain
import jax
import numpy as np

from mmvae_jax.batch import AnyBatch, Batch, as_batch
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.data.batching import Shard, batches
from mmvae_jax.data.prefetch import Prefetch, prefetch_to_device
from mmvae_jax.inputs.value_checks import check_values
from mmvae_jax.training.mesh import Layout, shard_batch
from mmvae_jax.training.schedule import Schedule


def device_batches(
    data: AnyBatch | grain.IterDataset,
    schedule: Schedule,
    layout: Layout | None,
    config: MMVAEConfig,
    *,
    batch_size: int,
    seed: int,
    step: int,
    data_state: Any = None,
) -> Prefetch[Batch]:
    """Returns an iterator over the batches of every call, on the device, from ``step`` on.

    Args:
      data: examples, or a pipeline of batches.
      schedule: schedule of the run. A call of several steps gets a batch with the steps as an
        axis in front.
      layout: mesh that the batches are spread over.
      config: config of the model, which the values must suit.
      batch_size: examples per batch, if ``data`` are examples.
      seed: seed of their order, which is a function of seed and step.
      step: number of steps made so far.
      data_state: state of the user's own pipeline to resume from.
    """
    check = partial(check_values, config, field="train_data.data")
    if isinstance(data, AnyBatch):
        shard = Shard(jax.process_index(), jax.process_count())
        last = schedule.num_steps
        data = batches(
            data, batch_size, seed=seed, start=step, num_steps=last, shard=shard, check=check
        )
    else:
        data = data.map(lambda batch: _checked(as_batch(batch), check))
    iterator = iter(data)
    if data_state is not None:
        iterator.set_state(data_state)
    return prefetch_to_device(_Calls(iterator, schedule, step), device_placement(layout))


def device_placement(layout: Layout | None) -> Callable[[list[Any]], Batch]:
    """Returns a function that puts the batches of one call on the devices."""

    def place(items: list[Any]) -> Batch:
        of_steps = [as_batch(item) for item in items]
        is_one = len(of_steps) == 1
        batch = of_steps[0] if is_one else jax.tree.map(lambda *x: np.stack(x), *of_steps)
        if layout is None:
            return jax.device_put(batch)
        return shard_batch(batch, layout.mesh, axis=0 if is_one else 1)

    return place


def _checked(batch: Batch, check: Callable[[Batch], None]) -> Batch:
    check(batch)
    return batch


class _Calls:
    """Iterator over the batches of each call, with the state of a grain iterator."""

    def __init__(self, iterator: grain.DatasetIterator, schedule: Schedule, step: int):
        self.iterator = iterator
        self.schedule = schedule
        self.step = step

    def __next__(self) -> list[Any]:
        size = self.schedule.call_size(self.step)
        items = [next(self.iterator) for _ in range(size)]
        self.step += size
        return items

    def get_state(self) -> dict[str, Any]:
        return {"step": self.step, "data": self.iterator.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.iterator.set_state(state["data"])

    def close(self) -> None:
        self.iterator.close()
