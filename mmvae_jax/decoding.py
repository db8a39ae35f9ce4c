"""log p(x_j|z) of a model's decoders, those of one architecture as one."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Shaped

from mmvae_jax.config import MMVAEConfig
from mmvae_jax.maths.likelihoods import likelihood_of, log_likelihood
from mmvae_jax.model import decode_modality
from mmvae_jax.overrides import LikelihoodParams
from mmvae_jax.stacking import Group, Stacked, run

Rows = Mapping[str, PyTree[Shaped[Array, "e ..."]]]


def likelihood_traits(
    config: MMVAEConfig, overridden: LikelihoodParams, names: Sequence[str] | None = None
) -> dict[str, tuple[Any, ...]]:
    """What two modalities must have in common for their likelihoods to be computed as one."""
    traits = {}
    for name in config.modalities if names is None else names:
        likelihood, params = config.likelihood(name)
        own = overridden.get(name, {})
        fixed = {param: value for param, value in params.items() if param not in own}
        traits[name] = (config.input_dims[name], likelihood, fixed, sorted(own))
    return traits


def log_likelihoods(
    config: MMVAEConfig,
    groups: tuple[Group, ...],
    stacked: Stacked,
    rows: Rows,
    z: Float[Array, "g e d"],
    key: PRNGKeyArray | None,
    style: str,
    overridden: LikelihoodParams,
) -> Float[Array, "j g e"]:
    """log p(x_j|z) of g latents for each of e examples, whose data are ``rows``, ``[e ...]``.

    Of the modalities in the groups, in the config's order; ``overridden`` are parameters of their
    likelihoods to use in place of the config's.
    """
    num_draws, num_examples, dim = z.shape
    flat = z.reshape(-1, dim)

    def of_modality(name: str, decoder: Any, given: tuple) -> Float[Array, "g e"]:
        number, x, own_params = given
        decoded = decode_modality(config, name, decoder, flat, key, number)
        decoded = decoded.reshape(num_draws, num_examples, *decoded.shape[1:])
        setting, params = config.likelihood(name)
        of_examples = log_likelihood(likelihood_of(setting), {**params, **own_params})
        return jax.vmap(of_examples, in_axes=(0, None))(decoded, x)

    num_encoders = len(config.modalities)  # their random keys have the first numbers
    names = [name for name in config.modalities if any(name in group.names for group in groups)]
    inputs = {
        name: (
            jnp.asarray(num_encoders + config.modalities.index(name)),
            rows[name],
            overridden.get(name, {}),
        )
        for name in names
    }
    outputs = run(groups, stacked, of_modality, inputs, style)
    return jnp.stack([outputs[name] for name in names])
