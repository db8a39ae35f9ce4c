"""The MMVAE module: encoders, decoders, the parameters of the prior and of likelihoods."""

import inspect
from collections.abc import Mapping, Sequence
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
from mmvae_jax.maths.latent_axes import expert_table
from mmvae_jax.maths.likelihoods import Incomplete
from mmvae_jax.maths.prior import Clusters, Prior, prior_components
from mmvae_jax.maths.tiles import default_tile_size
from mmvae_jax.maths.weights import Experts
from mmvae_jax.networks.calls import (
    check_attribute_names,
    check_networks,
    checked_posterior,
    describe,
    has_convolutions,
    random_streams,
)
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder

Modules = Mapping[str, Any]


class MMVAE(nnx.Module):
    """Variational mixture-of-experts autoencoder (Shi et al. 2019, arXiv 1911.03393).

    Args:
      config: its settings.
      encoders: ``{modality: module}``, ``x [n, *input_dim] -> (loc [n, d], log_var [n, d])``,
        where x may also be a pytree of arrays, see ``Batch``, and counts arrive as ``log(1 + x)``;
        ``MLPEncoder`` for modalities left out. With private latents w of size p, the arrays are
        ``[n, d + p]``, of u and then w.
      decoders: ``{modality: module}``, ``z [n, d] -> [n, *input_dim]``; ``MLPDecoder`` for
        modalities left out, with a sigmoid for image-shaped inputs (3 axes) under a normal or
        Laplace likelihood. With private latents z is ``[u, w]``, ``[n, d + p]``.
      dtype: type that the default networks compute in, such as ``jnp.bfloat16``; parameters,
        latents and densities stay in single precision.
      rngs: source of the default networks' initial parameters.

    Attributes:
      prior_log_var: raw scale of the prior ``[d]``; an ``nnx.Param`` only if ``learn_prior``. With
        private latents, that of u and w, ``[d + p]``; with clusters, that of w only.
      clusters: ``{"logits": [c], "loc": [c, d], "log_var": [c, d]}`` of the prior's clusters, the
        raw scales trained only if ``learn_prior``; empty without clusters.
      private_log_var: ``{modality: [p]}``, raw scale of r_m(w), which gives the private latents of
        other modalities than a particle's own.
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
        check_attribute_names("input_dims", config.modalities)
        self.config = config
        encoders, decoders = dict(encoders or {}), dict(decoders or {})
        check_networks("encoders", encoders, config.modalities)
        check_networks("decoders", decoders, config.modalities)
        for name in config.modalities:
            if name not in encoders:
                encoders[name] = MLPEncoder(
                    config.input_dims[name], config.network_dim(name), dtype=dtype, rngs=rngs
                )
            if name not in decoders:
                decoders[name] = _default_decoder(config, name, dtype, rngs)
        self.encoders = nnx.Dict(encoders)
        self.decoders = nnx.Dict(decoders)
        variable = nnx.Param if config.learn_prior else nnx.Variable
        num_axes = max(config.axes.private, default=0)
        if config.number_of_clusters == 1:
            num_axes += config.latent_dim
        self.prior_log_var = variable(jnp.zeros(num_axes))
        self.clusters = _clusters(config, variable, rngs)
        variable = nnx.Param if config.learn_modality_prior else nnx.Variable
        sizes = dict(zip(config.modalities, config.axes.private, strict=False))
        self.private_log_var = nnx.Dict(
            {name: variable(jnp.zeros(size)) for name, size in sizes.items() if size}
        )
        self.raw_likelihood_params = _raw_likelihood_params(config)

    @property
    def prior(self) -> Prior:
        """Parameters of the prior p(z)."""
        parts = {name: x[...] for name, x in entries(self.clusters).items()}
        return Prior(self.prior_log_var[...], Clusters(**parts) if parts else None)

    @property
    def pz_params(self) -> tuple[Float[Array, "*c d"], Float[Array, "*c d"]]:
        """Location and scale of the prior, ``[d]`` each, or ``[c, d]`` with clusters.

        With private latents, d counts the axes of ``z = [u, w_1, ..., w_M]``.
        """
        components = prior_components(self.config.family, self.config.axes, self.prior)
        loc, scale = components if entries(self.clusters) else (a[0] for a in components)
        return loc, scale

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

        With private latents, d counts the axes of ``z = [u, w_1, ..., w_M]``, and row m has the
        distribution of particles of expert m: ``q_m(u|x_m)``, ``q_m(w_m|x_m)``, and r_j(w_j) of
        the other modalities.

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
        num_examples, outputs = jax.tree.leaves(inputs)[-1].shape[0], []
        for number, name in enumerate(config.modalities):
            shape = (num_examples, config.network_dim(name))
            loc = log_var = jnp.zeros(shape)
            if name in inputs:
                encoder = nnx.clone(self.encoders[name])  # a call may count its random numbers
                keywords = random_streams(encoder, key, number)
                if "observed" in inspect.signature(encoder.__call__).parameters:
                    keywords["observed"] = masks.get(name)
                posterior = encoder(inputs[name], **keywords)
                loc, log_var = map(as_default_float, checked_posterior(name, posterior, shape))
            outputs.append((loc, log_var))
        return self._table(outputs)

    def _table(self, outputs: Sequence[tuple[Array, Array]]) -> Experts:
        """Returns the parameters of all experts from the outputs of their encoders."""
        axes, to_scale = self.config.axes, self.log_var_to_std
        parts = zip(*map(axes.shared_part, outputs), strict=True)
        locs, log_vars = map(jnp.stack, parts)
        shared = Experts(locs, to_scale(log_vars))
        if not axes.num_private:
            return shared
        own = [(loc, to_scale(raw)) for loc, raw in map(axes.private_part, outputs)]
        return expert_table(shared, own, self.private_scales())

    def private_scales(self) -> list[Float[Array, " p"]]:
        """Returns the scale of r_m(w) of each modality; empty without private latents."""
        raw, names = entries(self.private_log_var), self.config.modalities
        raws = [raw[name][...] if name in raw else jnp.zeros(0) for name in names]
        return [self.log_var_to_std(x) for x in raws] if raw else []


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
      z: latents ``[n, d]``; the decoder receives its axes of them.
      key: randomness of a decoder whose call takes ``rngs``.
      number: number of the network, which its random keys depend on.

    Raises:
      ValueError: if the decoded array has another shape.
    """
    z = config.axes.decoder_input(z, config.modalities.index(name))
    decoded = decoder(z, **random_streams(decoder, key, number))
    expected = (z.shape[0], *config.input_dims[name])
    if getattr(decoded, "shape", None) != expected:
        raise ValueError(
            f"decoders[{name!r}] returned {describe(decoded)}, expected shape {expected}: "
            f"input_dims[{name!r}] with the batch in front, channels last"
        )
    return as_default_float(decoded)


def tile_size(model: "MMVAE") -> int:
    """Returns the number of particles per decoder call that suits decoders and device."""
    return default_tile_size(has_convolutions=has_convolutions(model.decoders))


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
    size = config.network_dim(name)
    return MLPDecoder(size, dim, sigmoid=is_intensity, dtype=dtype, rngs=rngs)


def _clusters(config: MMVAEConfig, variable: type[nnx.Variable], rngs: nnx.Rngs) -> nnx.Dict:
    """Returns the parameters of the prior's clusters, with raw scales of this type.

    Locations are spread over (-1, 1), as in the code of Palumbo et al. (2024): clusters at one
    place would stay together.
    """
    if config.number_of_clusters == 1:
        return nnx.Dict()
    shape = (config.number_of_clusters, config.latent_dim)
    loc = jax.random.uniform(rngs.params(), shape, minval=-1, maxval=1)
    return nnx.Dict(
        logits=nnx.Param(jnp.zeros(shape[0])),
        loc=nnx.Param(loc),
        log_var=variable(jnp.zeros(shape)),
    )
