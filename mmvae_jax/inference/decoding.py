"""Data from latents: decode, predict, reconstruct, generate.

Pure functions of a model, a batch and a key, usable under jit, vmap and grad. Random layers are
off. Under ``jax.jit``, strings, counts and flags are static arguments.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from mmvae_jax.batch import AnyBatch, Observed, observe
from mmvae_jax.checks import check_count
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.generative import single_components
from mmvae_jax.inference.encoding import encode
from mmvae_jax.inference.latent_parts import check_latents
from mmvae_jax.inference.private_latents import generating_prior, with_generated
from mmvae_jax.inference.selection import Selection, modality_names
from mmvae_jax.inference.weighting import Weighting
from mmvae_jax.inputs.keys import as_key, as_optional_key
from mmvae_jax.likelihood_settings import LikelihoodSetting, likelihood_of
from mmvae_jax.maths.prior import draw_prior
from mmvae_jax.model import MMVAE, decode_modality, evaluation


def decode(
    model: MMVAE,
    z: Float[Array, "*n d"],
    *,
    modalities: Selection = "all",
    key: PRNGKeyArray | None = None,
    sample: bool = False,
) -> dict[str, Float[Array, "..."]]:
    """Decodes latents into modalities, ``{modality: [*n, *input_dim]}``.

    Args:
      model: an MMVAE.
      z: latents.
      modalities: ``"all"``, a name, or several names.
      key: randomness of ``sample``.
      sample: draw from the likelihoods (one-hot for categorical) instead of returning the decoded
        arrays: the mean of normal and Laplace, the logits of Bernoulli and categorical, the log
        mean of counts. ``expected_values`` gives means of all of them.

    Raises:
      ValueError: for unknown names, latents of another size, or ``sample`` without a key or of a
        likelihood that cannot be drawn from.

    >>> mm.decode(model, jnp.zeros((6, 2)))["text"].shape
    (6, 2, 3)
    """
    config = model.config
    names, key = modality_names("modalities", modalities, config), as_optional_key(key)
    check_latents(config.axes, z)
    _check_sampling(config, names, key, sample)
    return _decode(*evaluation(model), z, names, key if sample else None)


def expected_values(
    model: MMVAE, decoded: Mapping[str, Float[Array, "..."]]
) -> dict[str, Float[Array, "..."]]:
    """Returns the expected value of x given decoded arrays, ``{modality: [*n, *input_dim]}``.

    These are probabilities for Bernoulli and categorical, and mean counts for counts.

    Args:
      model: an MMVAE.
      decoded: arrays from ``decode``, ``predict`` or ``generate`` without ``sample``.

    Raises:
      ValueError: for unknown names, and likelihoods without a mean.

    >>> decoded = mm.decode(model, jnp.zeros((6, 2)), modalities="text")
    >>> mm.expected_values(model, decoded)["text"].sum(-1).round(3).tolist()[0]
    [1.0, 1.0]
    """
    config = model.config
    names = modality_names("decoded", tuple(decoded), config)
    values = {}
    for name in names:
        mean = likelihood_of(config.likelihood(name)[0]).mean
        if mean is None:
            raise ValueError(
                f"decoded[{name!r}] has a likelihood without a mean: give mm.Likelihood(mean=...)"
            )
        values[name] = mean(decoded[name], **model.likelihood_params(name))
    return values


def predict(
    model: MMVAE,
    batch: AnyBatch,
    key: PRNGKeyArray | None,
    *,
    cond_mod: Selection = "all",
    gen_mod: Selection = "all",
    N: int = 1,
    return_mean: bool = False,
    flatten: bool = False,
    sample: bool = False,
    weighting: Weighting = "mixture",
) -> dict[str, Float[Array, "..."]]:
    """Generates modalities from others: ``encode`` with ``cond_mod``, ``decode`` into ``gen_mod``.

    Args:
      model: an MMVAE.
      batch: examples; modalities that it leaves out count as missing.
      key: randomness; may be None where ``encode`` allows it, and without ``sample``.
      cond_mod: modalities to condition on: ``"all"``, a name, or several names.
      gen_mod: modalities to generate: ``"all"``, a name, or several names.
      N: number of draws per example.
      return_mean: decode the mean latent of ``encode``, N times, instead of draws.
      flatten: return ``[b * N, *input_dim]``, the draws of an example next to each other.
      sample: draw from the likelihoods instead of returning the decoded arrays.
      weighting: use of several given modalities, as in ``encode``, which has diagnostics.

    Returns:
      ``{modality: [b, N, *input_dim]}``, or ``[b * N, *input_dim]`` with ``flatten``.

    Raises:
      ValueError: as ``encode`` and ``decode``.

    >>> sounds = mm.Batch({"sound": data["sound"]})
    >>> mm.predict(model, sounds, jax.random.key(0), gen_mod="text", N=4)["text"].shape
    (5, 4, 2, 3)
    """
    key = as_optional_key(key)
    encode_key, sample_key = (None, None) if key is None else jax.random.split(key)
    z = encode(
        model,
        batch,
        encode_key,
        cond_mod=cond_mod,
        N=N,
        return_mean=return_mean,
        flatten=flatten,
        weighting=weighting,
    )
    assert not isinstance(z, tuple), "no diagnostics are asked for"
    names = modality_names("gen_mod", gen_mod, model.config)
    return decode(model, z, modalities=names, key=sample_key, sample=sample)


def reconstruct(
    model: MMVAE,
    batch: AnyBatch,
    key: PRNGKeyArray | None,
    *,
    N: int = 1,
    return_mean: bool = False,
    sample: bool = False,
) -> dict[str, dict[str, Float[Array, "..."]]]:
    """Generates every modality from every single one: the M x M grid of cross-generations.

    Args:
      model: an MMVAE.
      batch: examples; modalities that it leaves out count as missing.
      key: randomness; may be None with ``return_mean`` and without ``sample``.
      N: number of draws per example.
      return_mean: decode the location of each expert, N times, instead of draws.
      sample: draw from the likelihoods instead of returning the decoded arrays.

    Returns:
      ``{given: {generated: [b, N, *input_dim]}}``; NaN for examples whose given modality is
      missing.

    Raises:
      ValueError: as ``encode`` and ``decode``.

    >>> mm.reconstruct(model, batch, jax.random.key(0))["sound"]["text"].shape
    (5, 1, 2, 3)
    """
    config, key = model.config, as_optional_key(key)
    N = check_count("N", N)
    if key is None and (sample or not return_mean):
        raise ValueError("key is None: give jax.random.key(...), or return_mean=True")
    _check_sampling(config, config.modalities, key, sample)
    observed = observe(config, batch, allow_absent=True)
    stacked = _reconstruct(*evaluation(model), observed, key, N, return_mean, sample)
    return {
        given: {name: x[m] for name, x in stacked.items()}
        for m, given in enumerate(config.modalities)
    }


def generate_from_prior(
    model: MMVAE, key: PRNGKeyArray, n_samples: int
) -> Float[Array, "n_samples d"]:
    """Draws latents from the prior; ``decode`` turns them into modalities, as ``generate`` does.

    Private latents come from the distribution that ``reconstruction_option`` names.

    >>> mm.generate_from_prior(model, jax.random.key(0), 7).shape
    (7, 2)
    """
    n_samples = check_count("n_samples", n_samples)
    family, clusters = model.config.family, model.prior.clusters
    return draw_prior(family, generating_prior(model), clusters, as_key(key), (n_samples,))


def generate(
    model: MMVAE, key: PRNGKeyArray, n_samples: int, *, sample: bool = False
) -> dict[str, Float[Array, "..."]]:
    """Draws latents from the prior and decodes every modality, ``{modality: [n, *input_dim]}``.

    Raises:
      ValueError: as ``decode``.

    >>> mm.generate(model, jax.random.key(0), 7)["sound"].shape
    (7, 4)
    """
    n_samples = check_count("n_samples", n_samples)
    prior_key, sample_key = jax.random.split(as_key(key))
    z = generate_from_prior(model, prior_key, n_samples)
    return decode(model, z, key=sample_key, sample=sample)


@partial(jax.jit, static_argnames=("graphdef", "names"))
def _decode(graphdef, state, z, names, sample_key):
    model = nnx.merge(graphdef, state, copy=True)
    flat = z.reshape(-1, z.shape[-1])
    decoded = {}
    for name in names:
        x = decode_modality(model.config, name, model.decoders[name], flat)
        if sample_key is not None:
            # The draws of a modality do not depend on the others that are decoded.
            key = jax.random.fold_in(sample_key, model.config.modalities.index(name))
            x = _sample(model, name, x, key)
        decoded[name] = x.reshape(*z.shape[:-1], *x.shape[1:])
    return decoded


@partial(jax.jit, static_argnames=("graphdef", "N", "return_mean", "sample"))
def _reconstruct(graphdef, state, observed: Observed, key, N, return_mean, sample):
    model = nnx.merge(graphdef, state, copy=True)
    experts = single_components(model, with_generated(model, model.experts(observed.data)))
    loc = jnp.where(observed.mask[..., None], experts.loc, jnp.nan)[:, :, None]
    z = jnp.broadcast_to(loc, (*loc.shape[:2], N, loc.shape[3]))
    noise_key, sample_key = (None, None) if key is None else jax.random.split(key)
    if noise_key is not None and not return_mean:
        family = model.config.family
        z += experts.scale[:, :, None] * family.standard(noise_key, z.shape, z.dtype)
    return _decode(graphdef, state, z, model.config.modalities, sample_key if sample else None)


def _sample(
    model: MMVAE, name: str, decoded: Float[Array, "n *dim"], key: PRNGKeyArray
) -> Float[Array, "n *dim"]:
    setting, _ = model.config.likelihood(name)
    return draw_values(setting, key, decoded, model.likelihood_params(name))


def draw_values(
    setting: LikelihoodSetting,
    key: PRNGKeyArray,
    decoded: Float[Array, "..."],
    params: Mapping[str, Any],
) -> Float[Array, "..."]:
    """Returns draws from a likelihood that has any, given decoded arrays and its parameters."""
    sample = likelihood_of(setting).sample
    assert sample is not None, "checked by the callers"
    # DistraX itself promotes ranks when it samples, which a strict JAX refuses.
    with jax.numpy_rank_promotion("allow"):
        return sample(key, decoded, **params)


def _check_sampling(
    config: MMVAEConfig, names: Sequence[str], key: PRNGKeyArray | None, sample: bool
) -> None:
    if not sample:
        return
    if key is None:
        raise ValueError("sample is True and key is None: give key=jax.random.key(...)")
    densities = [n for n in names if likelihood_of(config.likelihood(n)[0]).sample is None]
    if densities:
        raise ValueError(
            f"sample is True, but the likelihoods of {densities} give densities and no draws: use "
            "sample=False, or mm.Likelihood(log_prob, sample)"
        )
