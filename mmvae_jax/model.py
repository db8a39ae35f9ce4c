"""The MMVAE module: encoders, decoders and the prior's parameter."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Shaped

from mmvae_jax.batch import Observed, encoder_input
from mmvae_jax.checks import check_modalities
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.maths.likelihoods import likelihood_of, log_likelihood
from mmvae_jax.maths.weights import Experts
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder

Modules = Mapping[str, Any]
LikelihoodParams = dict[str, dict[str, Float[Array, "..."]]]


class Theta(NamedTuple):
    """Parameters of p(X, z): everything but the encoders.

    Attributes:
      decoders: ``nnx.Param`` values of the decoders.
      prior_log_var: raw scale of the prior.
      likelihood_params: parameters of likelihoods in place of the config's, by modality and name.
    """

    decoders: PyTree
    prior_log_var: Float[Array, " d"]
    likelihood_params: LikelihoodParams


class MMVAE(nnx.Module):
    """Variational mixture-of-experts autoencoder (Shi et al. 2019, arXiv 1911.03393).

    Args:
      config: its settings.
      encoders: ``{modality: module}``, ``x [n, *input_dim] -> (loc [n, d], log_var [n, d])``,
        where x may also be a pytree of arrays, see ``Batch``; ``MLPEncoder`` for modalities left
        out.
      decoders: ``{modality: module}``, ``z [n, d] -> [n, *input_dim]``; ``MLPDecoder`` for
        modalities left out, with a sigmoid for image-shaped inputs (3 axes) under a normal or
        Laplace likelihood.
      dtype: type that the default networks compute in, such as ``jnp.bfloat16``; parameters,
        latents and densities stay in single precision.
      rngs: source of the default networks' initial parameters.

    Attributes:
      prior_log_var: raw scale of the prior ``[d]``; an ``nnx.Param`` only if ``learn_prior``.

    Raises:
      ValueError: if a network is given for an unknown modality, or carries state from one call
        to the next, as BatchNorm does.

    >>> loc, scale = model.experts({"sound": jnp.zeros((5, 4)), "text": jnp.zeros((5, 2), int)})
    >>> loc.shape  # [m, b, d]
    (2, 5, 2)
    """

    def __init__(
        self,
        config: MMVAEConfig,
        encoders: Modules | None = None,
        decoders: Modules | None = None,
        *,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.config = config
        encoders, decoders = dict(encoders or {}), dict(decoders or {})
        _check_networks("encoders", encoders, config)
        _check_networks("decoders", decoders, config)
        for name in config.modalities:
            if name not in encoders:
                encoders[name] = MLPEncoder(
                    config.input_dims[name], config.latent_dim, dtype=dtype, rngs=rngs
                )
            if name not in decoders:
                decoders[name] = _default_decoder(config, name, dtype, rngs)
        self.encoders = nnx.Dict(encoders)
        self.decoders = nnx.Dict(decoders)
        variable = nnx.Param if config.learn_prior else nnx.Variable
        self.prior_log_var = variable(jnp.zeros(config.latent_dim))

    @property
    def pz_params(self) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        """Location and scale of the prior, ``[d]`` each."""
        raw = self.prior_log_var[...]
        return jnp.zeros_like(raw), self.log_var_to_std(raw)

    def log_var_to_std(self, log_var: Float[ArrayLike, "*n d"]) -> Float[Array, "*n d"]:
        """Returns the scale for a raw output: ``config.family.to_scale(raw)``."""
        return self.config.family.to_scale(jnp.asarray(log_var))

    def experts(
        self,
        data: Mapping[str, PyTree[Shaped[Array, "b ..."]]],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Experts:
        """Returns the posterior parameters ``[m b d]`` of every modality, in the config's order.

        Args:
          data: one array ``[b, *input_dim]``, or pytree of arrays, per modality. Modalities left
            out get location 0 and a raw scale of 0.
          key: randomness of encoders whose call takes ``rngs``.
        """
        config = self.config
        inputs = {name: encoder_input(config, name, x) for name, x in data.items()}
        shape = (jax.tree.leaves(inputs)[-1].shape[0], config.latent_dim)
        locs, log_vars = [], []
        for number, name in enumerate(config.modalities):
            loc = log_var = jnp.zeros(shape)
            if name in inputs:
                encoder = nnx.clone(self.encoders[name])  # a call may count its random numbers
                posterior = encoder(inputs[name], **random_streams(encoder, key, number))
                loc, log_var = map(at_least_single, _checked_posterior(name, posterior, shape))
            locs.append(loc)
            log_vars.append(log_var)
        return Experts(jnp.stack(locs), self.log_var_to_std(jnp.stack(log_vars)))


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


def likelihood_of_examples(
    model: MMVAE, observed: Observed
) -> Callable[[Int[Array, " e"], Float[Array, "g e d"]], Float[Array, "g e"]]:
    """Returns the function ``(index, z) -> log p(X|z)`` of the examples with these numbers.

    X is all that an example observes; nothing is rescaled.
    """
    config = model.config
    graphdef, params, rest = nnx.split(model.decoders, nnx.Param, ...)
    theta = Theta(params, model.prior_log_var[...], {})
    given = np.array([name in observed.data for name in config.modalities])

    def log_likelihood(index: Int[Array, " e"], z: Float[Array, "g e d"]) -> Float[Array, "g e"]:
        rows = jax.tree.map(lambda x: x[index], observed.data)
        each = log_likelihoods(config, graphdef, theta, (rest, None), rows, z)
        mask = observed.mask[given][:, index]
        return jnp.where(mask[:, None], each, 0).sum(0)

    return log_likelihood


def decode_modality(
    config: MMVAEConfig,
    name: str,
    decoder: Any,
    z: Float[Array, "n d"],
    key: PRNGKeyArray | None = None,
    number: int = 0,
) -> Float[Array, "n ..."]:
    """Returns what the modality's decoder makes of z, ``[n, *input_dim]``.

    Args:
      config: settings of the model.
      name: name of the modality.
      decoder: decoder of the modality.
      z: latents.
      key: randomness of a decoder whose call takes ``rngs``.
      number: number of the network, which its random keys depend on.

    Raises:
      ValueError: if the decoded array has another shape.
    """
    decoded = decoder(z, **random_streams(decoder, key, number))
    expected = (z.shape[0], *config.input_dims[name])
    if getattr(decoded, "shape", None) != expected:
        raise ValueError(
            f"decoders[{name!r}] returned {_describe(decoded)}, expected shape {expected}: "
            f"input_dims[{name!r}] with the batch in front, channels last"
        )
    return at_least_single(decoded)


def at_least_single(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns x in single precision or better: half precision costs densities their digits."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def random_streams(network: Any, key: PRNGKeyArray | None, number: int) -> dict[str, nnx.Rngs]:
    """Returns the keyword ``rngs`` for a network whose call takes it, else no keywords."""
    if key is None or "rngs" not in inspect.signature(network.__call__).parameters:
        return {}
    return {"rngs": nnx.Rngs(jax.random.fold_in(key, number))}


def draws_numbers(networks: nnx.Module) -> bool:
    """Returns True if any of the networks may draw random numbers when called."""
    modules = [module for _, module in nnx.iter_graph(networks)]
    return any(
        isinstance(module, nnx.RngStream)
        or (isinstance(module, nnx.Dropout) and not module.deterministic)
        for module in modules
    )


def reseeded(model: nnx.Module, key: PRNGKeyArray | None) -> Any:
    """Returns a copy whose random streams start from the key (unchanged without one)."""
    copy = nnx.clone(model)
    if key is not None:
        streams = [s for _, s in nnx.iter_graph(copy) if isinstance(s, nnx.RngStream)]
        for index, stream in enumerate(streams):
            stream.key.set_value(jax.random.fold_in(key, index))
            stream.count.set_value(jnp.zeros((), jnp.uint32))
    return copy


def _default_decoder(
    config: MMVAEConfig, name: str, dtype: Dtype | None, rngs: nnx.Rngs
) -> MLPDecoder:
    dim = config.input_dims[name]
    is_intensity = len(dim) == 3 and config.likelihood(name)[0] in ("normal", "laplace")
    return MLPDecoder(config.latent_dim, dim, sigmoid=is_intensity, dtype=dtype, rngs=rngs)


def _check_networks(field: str, networks: Modules, config: MMVAEConfig) -> None:
    check_modalities(field, networks, config.modalities)
    for name, network in networks.items():
        for path, value in nnx.iter_graph(network):
            if isinstance(value, nnx.BatchStat | nnx.Cache):
                raise ValueError(
                    f"{field}[{name!r}] keeps the state {'.'.join(map(str, path))!r} "
                    f"({type(value).__name__}) from call to call, which a pure function cannot: "
                    "use LayerNorm or GroupNorm in place of BatchNorm"
                )


def _checked_posterior(name: str, output: Any, expected: tuple[Any, int]) -> tuple[Array, Array]:
    shapes = [getattr(a, "shape", None) for a in output] if isinstance(output, tuple) else None
    if shapes != [expected, expected]:
        raise ValueError(
            f"encoders[{name!r}] returned {_describe(output)}, expected a pair (loc, log_var) "
            f"of shape {expected} each"
        )
    return output


def _describe(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_describe, value))})"
    return f"shape {value.shape}" if hasattr(value, "shape") else type(value).__name__
