"""Clusters of examples: q(c|x) of a model whose prior is a mixture."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from mmvae_jax.batch import AnyBatch
from mmvae_jax.inference.encoding import encode
from mmvae_jax.inference.selection import Selection
from mmvae_jax.inference.weighting import Weighting
from mmvae_jax.maths.prior import cluster_log_probs
from mmvae_jax.model import MMVAE, evaluation


def predict_clusters(
    model: MMVAE,
    batch: AnyBatch,
    key: PRNGKeyArray,
    *,
    cond_mod: Selection = "all",
    N: int = 100,
    weighting: Weighting = "mixture",
) -> Float[Array, "b c"]:
    """Returns the probabilities of the prior's clusters, given the modalities of an example.

    ``q(c|x)`` is the mean of ``p(c|u) = pi_c p(u|c) / p(u)`` over draws of u (Palumbo et al. 2024);
    its ``argmax`` over c is the cluster.

    Args:
      model: an MMVAE with ``number_of_clusters`` above 1.
      batch: examples; modalities that it leaves out count as missing.
      key: randomness.
      cond_mod: modalities to condition on: ``"all"``, a name, or several names.
      N: number of draws of u per example.
      weighting: use of several given modalities, as in ``encode``.

    Raises:
      ValueError: for a model without clusters, and as ``encode``.

    >>> clustered = mm.MMVAE(config.replace(number_of_clusters=3), rngs=nnx.Rngs(0))
    >>> mm.predict_clusters(clustered, batch, jax.random.key(0)).shape
    (5, 3)
    """
    if model.config.number_of_clusters == 1:
        raise ValueError("number_of_clusters is 1: only a prior of several clusters has any")
    z = encode(model, batch, key, cond_mod=cond_mod, N=N, weighting=weighting)
    assert not isinstance(z, tuple), "no diagnostics are asked for"
    return _cluster_shares(*evaluation(model), z)


@partial(jax.jit, static_argnames=("graphdef",))
def _cluster_shares(graphdef, state, z: Float[Array, "b N d"]) -> Float[Array, "b c"]:
    model = nnx.merge(graphdef, state, copy=True)
    clusters, u = model.prior.clusters, model.config.axes.shared_part(z)
    assert clusters is not None, "checked by predict_clusters"
    log_p = cluster_log_probs(model.config.family, clusters, u)
    return jnp.moveaxis(jax.nn.softmax(log_p, axis=0).mean(2), 0, 1)
