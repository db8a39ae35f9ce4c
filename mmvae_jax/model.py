"""The MMVAE module: encoders, decoders, the parameters of the prior and of likelihoods."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from mmvae_jax.checks import check_modalities
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.inputs.keys import as_optional_key
from mmvae_jax.inputs.model_inputs import as_default_float, encoder_input, model_inputs
from mmvae_jax.likelihood_params import Learned, LikelihoodParams
from mmvae_jax.likelihood_settings import MixedLikelihood
from mmvae_jax.maths.likelihoods import Incomplete
from mmvae_jax.maths.tiles import default_tile_size
from mmvae_jax.maths.weights import Experts
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder

Modules = Mapping[str, Any]
#: Attributes that ``model.train()`` and ``model.eval()`` set in every module.
FLAGS = ("deterministic", "use_running_average")


class MMVAE(nnx.Module):
    """Variational mixture-of-experts autoencoder (Shi et al. 2019, arXiv 1911.03393).

    Args:
      config: its settings.
      encoders: ``{modality: module}``, ``x [n, *input_dim] -> (loc [n, d], log_var [n, d])``,
        where x may also be a pytree of arrays, see ``Batch``, and counts arrive as ``log(1 + x)``;
        ``MLPEncoder`` for modalities left out.
      decoders: ``{modality: module}``, ``z [n, d] -> [n, *input_dim]``; ``MLPDecoder`` for
        modalities left out, with a sigmoid for image-shaped inputs (3 axes) under a normal or
        Laplace likelihood.
      dtype: type that the default networks compute in, such as ``jnp.bfloat16``; parameters,
        latents and densities stay in single precision.
      rngs: source of the default networks' initial parameters.

    Attributes:
      prior_log_var: raw scale of the prior ``[d]``; an ``nnx.Param`` only if ``learn_prior``.
      raw_likelihood_params: ``{modality: {parameter: nnx.Param}}``, the raw value of every
        ``Learned`` parameter; ``likelihood_params`` returns the values.

    Raises:
      ValueError: if a network is given for an unknown modality, or carries state from one call
        to the next, as BatchNorm does; or if ``rngs`` are not ``nnx.Rngs``.

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
        if not isinstance(rngs, nnx.Rngs):
            raise ValueError(f"rngs is {rngs!r}: give nnx.Rngs(seed), or nnx.Rngs(key)")
        _check_names(config)
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
        self.raw_likelihood_params = _raw_likelihood_params(config)

    @property
    def pz_params(self) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        """Location and scale of the prior, ``[d]`` each."""
        raw = self.prior_log_var[...]
        return jnp.zeros_like(raw), self.log_var_to_std(raw)

    def log_var_to_std(self, log_var: Float[ArrayLike, "*n d"]) -> Float[Array, "*n d"]:
        """Returns the scale for a raw output: ``config.family.to_scale(raw)``."""
        return self.config.family.to_scale(jnp.asarray(log_var))

    def likelihood_params(self, name: str) -> dict[str, Any]:
        """Returns the current parameters of the modality's likelihood, by name.

        Raises:
          ValueError: if there is no such modality.
        """
        check_modalities("name", [name], self.config.modalities)
        _, params = self.config.likelihood(name)
        return {**params, **self.learned_params().get(name, {})}

    def learned_params(self) -> LikelihoodParams:
        """Returns the current values of the ``Learned`` parameters, by modality and name."""
        return {
            name: {
                param: self.config.likelihood(name)[1][param].value(raw[...])
                for param, raw in entries(params).items()
            }
            for name, params in entries(self.raw_likelihood_params).items()
        }

    def experts(
        self,
        data: Mapping[str, Any],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Experts:
        """Returns the posterior parameters ``[m b d]`` of every modality, in the config's order.

        Args:
          data: data of a batch, converted as a batch is, or of an ``Observed`` one. Modalities left
            out get location 0 and a raw scale of 0.
          key: randomness of encoders whose call takes ``rngs``.
        """
        config, key = self.config, as_optional_key(key)
        check_modalities("data", data, config.modalities)
        masks = {name: x.observed for name, x in data.items() if isinstance(x, Incomplete)}
        given = model_inputs(
            config, {name: x.values if name in masks else x for name, x in data.items()}
        )
        inputs = {
            name: encoder_input(config, name, x, masks.get(name)) for name, x in given.items()
        }
        shape = (jax.tree.leaves(inputs)[-1].shape[0], config.latent_dim)
        locs, log_vars = [], []
        for number, name in enumerate(config.modalities):
            loc = log_var = jnp.zeros(shape)
            if name in inputs:
                encoder = nnx.clone(self.encoders[name])  # a call may count its random numbers
                keywords = random_streams(encoder, key, number)
                if "observed" in inspect.signature(encoder.__call__).parameters:
                    keywords["observed"] = masks.get(name)
                posterior = encoder(inputs[name], **keywords)
                loc, log_var = map(as_default_float, _checked_posterior(name, posterior, shape))
            locs.append(loc)
            log_vars.append(log_var)
        return Experts(jnp.stack(locs), self.log_var_to_std(jnp.stack(log_vars)))


def entries(modules: nnx.Dict) -> dict[str, Any]:
    """Returns the entries of an ``nnx.Dict``, whose methods its own entries may hide by name."""
    return {name: modules[name] for name in modules}


def evaluation(model: MMVAE) -> tuple[nnx.GraphDef, nnx.State]:
    """Returns the parts of the model for evaluations: random layers are off, all experts on."""
    view = nnx.view(model, deterministic=True, raise_if_not_found=False)
    view.config = model.config.with_all_experts()
    return nnx.split(view)


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
    return as_default_float(decoded)


def random_streams(network: Any, key: PRNGKeyArray | None, number: int) -> dict[str, Any]:
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


def has_convolutions(networks: nnx.Module) -> bool:
    """Returns True if any of the networks has kernels with more axes than a matrix."""
    return any(jnp.ndim(x) > 2 for x in jax.tree.leaves(nnx.state(networks, nnx.Param)))


def tile_size(model: "MMVAE") -> int:
    """Returns the number of particles per decoder call that suits decoders and device."""
    return default_tile_size(has_convolutions=has_convolutions(model.decoders))


def reseeded(model: nnx.Module, key: PRNGKeyArray | None) -> Any:
    """Returns a copy whose random streams start from the key (unchanged without one)."""
    copy = nnx.clone(model)
    if key is not None:
        streams = [s for _, s in nnx.iter_graph(copy) if isinstance(s, nnx.RngStream)]
        for index, stream in enumerate(streams):
            stream.key.set_value(jax.random.fold_in(key, index))
            stream.count.set_value(jnp.zeros((), jnp.uint32))
    return copy


def _raw_likelihood_params(config: MMVAEConfig) -> nnx.Dict:
    """Returns the raw values of the ``Learned`` parameters; empty if there are none."""
    raw = {}
    for name, dim in config.input_dims.items():
        likelihood, params = config.likelihood(name)
        sizes = likelihood.sizes if isinstance(likelihood, MixedLikelihood) else {}
        learned = {
            param: nnx.Param(x.raw((sizes.get(param, dim[-1]),)))
            for param, x in params.items()
            if isinstance(x, Learned)
        }
        if learned:
            raw[name] = nnx.Dict(learned)
    return nnx.Dict(raw)


def _default_decoder(
    config: MMVAEConfig, name: str, dtype: Dtype | None, rngs: nnx.Rngs
) -> MLPDecoder:
    dim = config.input_dims[name]
    is_intensity = len(dim) == 3 and config.likelihood(name)[0] in ("normal", "laplace")
    return MLPDecoder(config.latent_dim, dim, sigmoid=is_intensity, dtype=dtype, rngs=rngs)


def _check_names(config: MMVAEConfig) -> None:
    """Checks that a Flax module can hold every modality as an attribute."""
    for name in config.modalities:
        if name in FLAGS or name.startswith(("__", "_pytree__")):
            raise ValueError(
                f"input_dims has the modality name {name!r}, an attribute of Flax modules: "
                "give another name"
            )


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
