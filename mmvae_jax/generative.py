"""The generative model p(X, z) of an MMVAE: its parameters, and log p(x|z) as functions of them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from mmvae_jax.batch import Observed
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.likelihood_params import LikelihoodParams
from mmvae_jax.likelihood_settings import likelihood_of
from mmvae_jax.maths.aggregation import aggregate
from mmvae_jax.maths.latent_axes import with_own_private
from mmvae_jax.maths.likelihoods import log_likelihood
from mmvae_jax.maths.prior import Prior, prior_components
from mmvae_jax.maths.proposal import Proposal, with_prior
from mmvae_jax.maths.weights import Experts, observed_experts
from mmvae_jax.model import MMVAE, decode_modality


class Theta(NamedTuple):
    """Parameters of p(X, z): everything but the encoders.

    Attributes:
      decoders: ``nnx.Param`` values of the decoders.
      prior: parameters of p(z).
      likelihood_params: parameters of likelihoods that are trained or replaced, by modality and
        name; the config has the others.
    """

    decoders: PyTree
    prior: Prior
    likelihood_params: LikelihoodParams


def split_theta(
    model: MMVAE, replaced: LikelihoodParams | None = None
) -> tuple[nnx.GraphDef, Theta, PyTree]:
    """Returns the static part of the decoders, theta, and the decoders' other variables.

    Args:
      model: an MMVAE.
      replaced: parameters of likelihoods in place of the config's and of the trained ones.
    """
    graphdef, params, rest = nnx.split(model.decoders, nnx.Param, ...)
    learned, replaced = model.learned_params(), replaced or {}
    likelihood_params = {
        name: {**learned.get(name, {}), **replaced.get(name, {})}
        for name in {**learned, **replaced}
    }
    return graphdef, Theta(params, model.prior, likelihood_params), rest


def log_likelihoods(
    config: MMVAEConfig,
    graphdef: nnx.GraphDef,
    theta: Theta,
    state: tuple[PyTree, PRNGKeyArray | None],
    rows: Mapping[str, PyTree[Shaped[Array, "e ..."]]],
    z: Float[Array, "g e d"],
) -> Float[Array, "j g e"]:
    """Returns log p(x_j|z) of g latents for each of e examples.

    Args:
      config: settings of the model.
      graphdef: static part of the model's decoders.
      theta: parameters.
      state: variables of the decoders other than parameters, and the key of decoders whose call
        takes ``rngs``.
      rows: data of the examples; the likelihoods are those of its modalities, in the config's
        order.
      z: latents.
    """
    rest, key = state
    decoders = nnx.merge(graphdef, theta.decoders, rest, copy=True)
    num_draws, num_examples, dim = z.shape
    found = []
    for number, name in enumerate(config.modalities, start=len(config.modalities)):
        if name not in rows:
            continue
        decoder = nnx.clone(decoders[name])
        decoded = decode_modality(config, name, decoder, z.reshape(-1, dim), key, number)
        decoded = decoded.reshape(num_draws, num_examples, *decoded.shape[1:])
        setting, params = config.likelihood(name)
        params = {**params, **theta.likelihood_params.get(name, {})}
        of_examples = log_likelihood(likelihood_of(setting), params)
        found.append(jax.vmap(of_examples, in_axes=(0, None))(decoded, rows[name]))
    return jnp.stack(found)


def proposal_of(
    model: MMVAE, observed: Observed, available: Bool[Array, "m b"], prior_share: float
) -> Proposal:
    """Returns the distribution of all of z that estimates of likelihoods sample from.

    Every component draws the private latents of all available modalities from their own
    posteriors, and those of the others from the prior p(w): the target is the model's density
    ``p(u) prod_j p(w_j)``.
    """
    family, axes, prior = model.config.family, model.config.axes, model.prior
    of_prior = prior_components(family, axes, prior)
    experts = observed_experts(model.experts(observed.data), available)
    experts = with_own_private(axes, experts, available, axes.private_part(of_prior.scale[0]))
    experts, available = components_of(model, experts, available)
    return with_prior(observed_experts(experts, available), of_prior, available, prior_share)


def components_of(
    model: MMVAE, experts: Experts, available: Bool[Array, "m b"]
) -> tuple[Experts, Bool[Array, "c b"]]:
    """Returns the components of q(z|X) by the config's ``aggregation``, and the available ones."""
    config = model.config
    scale = prior_components(config.family, config.axes, model.prior).scale[0]
    return aggregate(config.aggregation, experts, available, scale)


def single_components(model: MMVAE, experts: Experts) -> Experts:
    """Returns the posterior of z given each modality by itself, ``[m b d]``.

    It is the expert, or for ``aggregation="poe"`` its product with the prior.
    """
    if model.config.aggregation != "poe":
        return experts
    given = jnp.ones((1, experts.loc.shape[1]), bool)
    rows = [Experts(*(a[m : m + 1] for a in experts)) for m in range(len(experts.loc))]
    components = [components_of(model, row, given)[0] for row in rows]
    return Experts(*(jnp.concatenate(parts) for parts in zip(*components, strict=True)))


def likelihood_of_examples(
    model: MMVAE, observed: Observed
) -> Callable[[Int[Array, " e"], Float[Array, "g e d"]], Float[Array, "g e"]]:
    """Returns the function ``(index, z) -> log p(X|z)`` of the examples with these numbers.

    X is all that an example observes; nothing is rescaled.
    """
    config = model.config
    graphdef, theta, rest = split_theta(model)
    given = np.array([name in observed.data for name in config.modalities])

    def log_likelihood(index: Int[Array, " e"], z: Float[Array, "g e d"]) -> Float[Array, "g e"]:
        rows = jax.tree.map(lambda x: x[index], observed.data)
        each = log_likelihoods(config, graphdef, theta, (rest, None), rows, z)
        mask = observed.mask[given][:, index]
        return jnp.where(mask[:, None], each, 0).sum(0)

    return log_likelihood
