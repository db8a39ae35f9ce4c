"""Latents of examples, drawn or averaged, given some of their modalities."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from mmvae_jax.batch import AnyBatch, Observed, observe
from mmvae_jax.checks import check_count
from mmvae_jax.inference.private_latents import components_given
from mmvae_jax.inference.selection import Selection, check_available, modality_mask, modality_names
from mmvae_jax.inference.weighting import Weighting, importance_weighting, weighted_latents
from mmvae_jax.inputs.keys import as_optional_key
from mmvae_jax.maths.mixture import draw_mixture, mixture_mean
from mmvae_jax.maths.pareto import Diagnostics
from mmvae_jax.model import MMVAE, evaluation

Latents = Float[Array, "b N d"] | Float[Array, "bN d"]


def encode(
    model: MMVAE,
    batch: AnyBatch,
    key: PRNGKeyArray | None,
    *,
    cond_mod: Selection = "all",
    N: int = 1,
    return_mean: bool = False,
    flatten: bool = False,
    weighting: Weighting = "mixture",
    return_diagnostics: bool = False,
) -> Latents | tuple[Latents, Diagnostics]:
    """Draws latents given the modalities that are both named and observed.

    With ``weighting="mixture"``, every draw picks one of these modalities' experts, uniformly. With
    ``"importance"``, particles of all these experts are weighed by ``p(x_given|z) p(z) / q(z)`` and
    resampled: with many particles, draws of the model's posterior ``p(z|x_given)``.

    Args:
      model: an MMVAE.
      batch: examples; modalities that it leaves out count as missing.
      key: randomness; may be None with ``return_mean`` under ``"mixture"``.
      cond_mod: ``"all"``, the name of a modality, or several names.
      N: number of draws per example.
      return_mean: return the mean, N times, instead of draws: the average of the available experts'
        locations, or the weighted mean of the particles.
      flatten: return ``[b * N, d]``, the draws of an example next to each other.
      weighting: ``"mixture"``, ``"importance"``, or an ``ImportanceWeighting``.
      return_diagnostics: also return the ``Diagnostics`` of importance weighting.

    Returns:
      Latents ``[b, N, d]``.

    Raises:
      ValueError: for unknown names, a batch that does not fit, diagnostics of a mixture, or,
        outside jit, an example with no modality to condition on; inside jit its latents are NaN.

    >>> mm.encode(model, batch, jax.random.key(0), cond_mod="sound", N=4).shape
    (5, 4, 2)
    """
    config, setting = model.config, importance_weighting(weighting)
    key, N = as_optional_key(key), check_count("N", N)
    if return_diagnostics and setting is None:
        raise ValueError("return_diagnostics is True: only importance weighting has diagnostics")
    observed = observe(config, batch, allow_absent=True)
    available = observed.mask & modality_mask("cond_mod", cond_mod, config)
    check_available(available, cond_mod)
    if key is None and not (return_mean and setting is None):
        raise ValueError("key is None: give jax.random.key(...), or return_mean=True of a mixture")
    parts = (*evaluation(model), observed, available, key, N, return_mean)
    if setting is None:
        z, diagnostics = _encode(*parts), None
    else:
        names = modality_names("cond_mod", cond_mod, config)
        z, diagnostics = weighted_latents(*parts, names, setting)
    z = z.reshape(-1, z.shape[-1]) if flatten else z
    return (z, diagnostics) if return_diagnostics and diagnostics is not None else z


@partial(jax.jit, static_argnames=("graphdef", "N", "return_mean"))
def _encode(graphdef, state, observed: Observed, available, key, N, return_mean):
    model = nnx.merge(graphdef, state, copy=True)
    components, available = components_given(model, model.experts(observed.data), available)
    if return_mean:
        mean = mixture_mean(components, available)[:, None]
        return jnp.broadcast_to(mean, (mean.shape[0], N, mean.shape[2]))
    return draw_mixture(model.config.family, components, available, key, N)
