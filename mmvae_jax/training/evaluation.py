"""Metrics of a model on a whole data set."""

from functools import partial
from typing import Any

import jax
import numpy as np

from mmvae_jax.batch import AnyBatch
from mmvae_jax.data.batching import Shard, eval_batches
from mmvae_jax.inputs.keys import as_key
from mmvae_jax.inputs.value_checks import check_values
from mmvae_jax.training.donation import check_not_donated
from mmvae_jax.training.input_pipeline import device_placement
from mmvae_jax.training.steps import eval_means
from mmvae_jax.training.train_state import TrainState, config_of

#: Number that the key of evaluations is folded with; no step reaches it.
_EVALUATION = np.uint32(2**32 - 1)


def evaluate(
    state: TrainState,
    data: AnyBatch,
    *,
    batch_size: int = 128,
    key: jax.Array | None = None,
) -> dict[str, float]:
    """Returns the metrics of ``eval_step`` over all examples that they are defined for.

    Args:
      state: train state from ``create_train_state``, on a mesh or not.
      data: examples; incomplete ones count where they are observed.
      batch_size: examples per call, of all processes together. The last batch is padded with
        examples that count for nothing.
      key: randomness of the particles; by default one that depends on the run only, so that
        different steps are compared on the same draws.

    Raises:
      ValueError: if the data do not fit the model, or the batch size the devices.

    >>> state = mm.create_train_state(model, tx, key=jax.random.key(0))
    >>> mm.evaluate(state, arrays, batch_size=2)["loss"] > 0
    True
    """
    check_not_donated(state)
    key = jax.random.fold_in(as_key(state.key), _EVALUATION) if key is None else as_key(key)
    place = device_placement(state.layout)
    totals: dict[str, Any] = {}
    shard = Shard(jax.process_index(), jax.process_count())
    check = partial(check_values, config_of(state), field="data")
    for number, arrays in enumerate(eval_batches(data, batch_size, shard=shard, check=check)):
        means = eval_means(state, place([arrays]), jax.random.fold_in(key, number))
        for name, mean in jax.tree.map(float, jax.device_get(means)).items():
            totals[name] = totals[name].merge(mean) if name in totals else mean
    return {name: float(mean.value) for name, mean in totals.items()}
