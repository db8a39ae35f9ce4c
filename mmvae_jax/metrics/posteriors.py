"""The posteriors of a model's experts, over batches of a data set."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, Bool

from mmvae_jax.batch import AnyBatch, MultimodalArrays, Observed, observe
from mmvae_jax.data.eval_batches import eval_batches
from mmvae_jax.inference import evaluation
from mmvae_jax.maths.weights import Experts
from mmvae_jax.model import MMVAE


class Posteriors(NamedTuple):
    """What the experts say of a batch.

    Attributes:
      experts: locations and scales ``[m b d]``, of any value where missing.
      mask: which modalities were observed.
    """

    experts: Experts
    mask: Bool[Array, "m b"]


def posteriors(model: MMVAE, batch: AnyBatch) -> Posteriors:
    """Returns every expert's posterior of every example, with random layers off.

    Raises:
      ValueError: for a batch that does not fit.

    >>> experts, mask = posteriors(model, batch)
    >>> experts.scale.shape, mask.shape
    ((2, 5, 2), (2, 5))
    """
    observed = observe(model.config, batch, allow_absent=True)
    return Posteriors(_experts(*evaluation(model), observed), observed.mask)


def posteriors_of(
    model: MMVAE, data: AnyBatch, batch_size: int
) -> Iterator[tuple[MultimodalArrays, Posteriors]]:
    """Goes through a data set in batches of one size, filled up with examples that miss everything.

    Raises:
      ValueError: for data that do not fit.
    """
    for batch in eval_batches(data, batch_size):
        yield batch, posteriors(model, batch)


@partial(jax.jit, static_argnames=("graphdef",))
def _experts(graphdef: nnx.GraphDef, state: nnx.State, observed: Observed) -> Experts:
    return nnx.merge(graphdef, state, copy=True).experts(observed.data)
