"""The MMVAE module: encoders, decoders and the prior's parameter."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Shaped

from mmvae_jax.batch import encoder_input
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.maths.backward import resolve_stacking
from mmvae_jax.maths.distributions import family_of
from mmvae_jax.maths.weights import Experts
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.stacking import run, stack

Modules = Mapping[str, Any]


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
        """Location and scale of the prior."""
        raw = self.prior_log_var[...]
        return jnp.zeros_like(raw), self.log_var_to_std(raw)

    def log_var_to_std(self, log_var: Float[ArrayLike, "*n d"]) -> Float[Array, "*n d"]:
        """Scale from a network's raw output: ``softmax(raw) d + 1e-6``, or ``exp(raw / 2)``."""
        return family_of(self.config.prior_and_posterior_dist).to_scale(jnp.asarray(log_var))

    def experts(
        self,
        data: Mapping[str, PyTree[Shaped[Array, "b ..."]]],
        *,
        key: PRNGKeyArray | None = None,
        stacking: str = "auto",
    ) -> Experts:
        """Posterior parameters ``[m b d]`` of every modality, in the config's order.

        Args:
          data: one array ``[b, *input_dim]`` per modality, or pytree of arrays; modalities left
            out have location 0 and a raw scale of 0.
          key: for encoders whose call takes ``rngs``.
          stacking: how encoders of one architecture run, as in ``Backward``.
        """
        config = self.config
        style = resolve_stacking(stacking)
        inputs = {
            name: (jnp.asarray(m), encoder_input(config, name, data[name]))
            for m, name in enumerate(config.modalities)
            if name in data
        }
        traits = {name: jax.tree.map(jax.typeof, x) for name, (_, x) in inputs.items()}
        shape = (jax.tree.leaves(inputs)[-1].shape[0], config.latent_dim)

        def encode(name: str, encoder: Any, given: tuple[Array, PyTree]) -> tuple[Array, Array]:
            m, x = given
            loc, log_var = _checked_posterior(name, call(encoder, x, key, m), shape)
            return at_least_single(loc), at_least_single(log_var)

        groups, stacked = stack(self.encoders, traits, style)
        outputs = run(groups, stacked, encode, inputs, style)
        absent = (jnp.zeros(shape),) * 2
        ordered = [outputs.get(name, absent) for name in config.modalities]
        loc, log_var = (jnp.stack(values) for values in zip(*ordered, strict=True))
        return Experts(loc, self.log_var_to_std(log_var))


def decode_modality(
    config: MMVAEConfig,
    name: str,
    decoder: Any,
    z: Float[Array, "n d"],
    key: PRNGKeyArray | None = None,
    number: Int[ArrayLike, ""] = 0,
) -> Float[Array, "n ..."]:
    """What the modality's decoder makes of z, ``[n, *input_dim]``; the shape is checked."""
    decoded = call(decoder, z, key, number)
    expected = (z.shape[0], *config.input_dims[name])
    if getattr(decoded, "shape", None) != expected:
        raise ValueError(
            f"decoders[{name!r}] returned {_describe(decoded)}, expected shape {expected}: "
            f"input_dims[{name!r}] with the batch in front, channels last"
        )
    return at_least_single(decoded)


def at_least_single(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """In single precision or better: densities lose their digits in half precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def call(network: Any, x: PyTree, key: PRNGKeyArray | None, number: Int[ArrayLike, ""]) -> Any:
    """Call a network, with random keys of its own number if its signature takes ``rngs``."""
    takes_rngs = "rngs" in inspect.signature(network.__call__).parameters
    if key is None or not takes_rngs:
        return network(x)
    return network(x, rngs=nnx.Rngs(jax.random.fold_in(key, number)))


def draws_numbers(networks: nnx.Module) -> bool:
    """Whether any of the networks may draw random numbers when called."""
    modules = [module for _, module in nnx.iter_graph(networks)]
    return any(
        isinstance(module, nnx.RngStream)
        or (isinstance(module, nnx.Dropout) and not module.deterministic)
        for module in modules
    )


def reseeded(model: nnx.Module, key: PRNGKeyArray | None) -> Any:
    """A copy whose random streams start from the key (from where they stand without one)."""
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
    unknown = [name for name in networks if name not in config.input_dims]
    if unknown:
        raise ValueError(
            f"{field} has the unknown modalities {unknown}: known are {list(config.modalities)}"
        )
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
