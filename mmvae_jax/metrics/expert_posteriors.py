"""Posteriors of a model's experts, for a batch or a whole data set."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, Bool

from mmvae_jax.batch import AnyBatch, MultimodalArrays, Observed, observe
from mmvae_jax.data.batching import eval_batches
from mmvae_jax.inputs.value_checks import check_values
from mmvae_jax.maths.weights import Experts
from mmvae_jax.model import MMVAE, evaluation


class Posteriors(NamedTuple):
    """Posteriors of every expert for every example of a batch.

    Attributes:
      experts: locations and scales of u, ``[m b d]``, or of all axes of z; arbitrary where the
        modality is missing.
      mask: True where a modality is observed, ``[m b]``.
    """

    experts: Experts
    mask: Bool[Array, "m b"]


def posteriors(model: MMVAE, batch: AnyBatch, *, all_axes: bool = False) -> Posteriors:
    """Returns every expert's posterior for every example, with random layers off.

    With ``aggregation="poe"`` these are the factors of q(z|X), without the prior's.

    Args:
      model: an MMVAE.
      batch: examples.
      all_axes: include the private latents, as ``model.experts``; by default only u.

    Raises:
      ValueError: if the batch does not fit the model.

    >>> experts, mask = posteriors(model, batch)
    >>> experts.scale.shape, mask.shape
    ((2, 5, 2), (2, 5))
    """
    observed = observe(model.config, batch, allow_absent=True)
    return Posteriors(_experts(*evaluation(model), observed, all_axes), observed.mask)


def posteriors_of(
    model: MMVAE, data: AnyBatch, batch_size: int, *, all_axes: bool = False
) -> Iterator[tuple[MultimodalArrays, Posteriors]]:
    """Yields each batch of a data set with its posteriors, see ``posteriors``.

    All batches have ``batch_size`` rows; the last one is padded with rows that miss everything.

    Raises:
      ValueError: if the data do not fit the model.
    """
    check = partial(check_values, model.config, field="data")
    for batch in eval_batches(data, batch_size, check=check):
        yield batch, posteriors(model, batch, all_axes=all_axes)


@partial(jax.jit, static_argnames=("graphdef", "all_axes"))
def _experts(
    graphdef: nnx.GraphDef, state: nnx.State, observed: Observed, all_axes: bool
) -> Experts:
    model = nnx.merge(graphdef, state, copy=True)
    experts = model.experts(observed.data)
    return experts if all_axes else model.config.axes.shared_part(experts)
