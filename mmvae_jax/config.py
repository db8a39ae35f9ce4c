"""Settings of an MMVAE: checked when made, immutable afterwards."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Mapping
from typing import Any, no_type_check

from mmvae_jax.checks import (
    check_choice,
    check_count,
    check_flag,
    check_not_negative,
    check_positive,
    plain,
)
from mmvae_jax.config_checks import (
    by_modality,
    check_aggregation,
    check_private_settings,
    checked_dims,
    checked_experts_per_step,
    checked_factors,
    checked_private_dims,
)
from mmvae_jax.frozen_dict import FrozenDict
from mmvae_jax.likelihood_params import Learned, checked_params
from mmvae_jax.likelihood_settings import LikelihoodSetting, MixedLikelihood, checked_likelihoods
from mmvae_jax.maths.aggregation import component_names
from mmvae_jax.maths.distributions import FAMILIES, FLOORED, MIN_SCALE, Family, family_of
from mmvae_jax.maths.latent_axes import LatentAxes
from mmvae_jax.maths.losses import LOSSES


@no_type_check  # at run time: the checks here say more than an annotation would
@dataclasses.dataclass(frozen=True, kw_only=True)
class MMVAEConfig:
    """Settings of an MMVAE, with the names and defaults of MultiVae's ``MMVAEConfig``.

    Args:
      input_dims: shape of one example of each modality, channels last; its order is the
        order of the experts.
      n_modalities: number of modalities; optional, checked against ``input_dims`` if given.
      latent_dim: size d of the latent variable.
      uses_likelihood_rescaling: multiply log p(x_m|z) by a factor, so that large modalities
        do not drown small ones.
      rescale_factors: the factor of each modality; ``max_j dim_j / dim_m`` when left out, where
        dim is the product of ``input_dims`` under any likelihood (one-hot classes count all).
      decoders_dist: likelihood of each modality: normal, laplace, bernoulli (logits),
        categorical (logits over the last axis), poisson, negative_binomial or
        zero_inflated_negative_binomial (log means), a ``MixedLikelihood`` of columns, a custom
        ``Likelihood``, or only its log density ``(decoded [*input_dim], x [*input_dim], **params)
        -> log p []`` of one example; normal for modalities left out.
      decoder_dist_params: keyword parameters of the likelihoods: ``{"scale": s}`` for normal
        and laplace (default 1), ``dispersion`` and ``zero_odds`` (trained, one per feature) and
        ``library_size`` for counts, any keywords for custom ones. ``Learned(s)`` in place of a
        number is trained with the model.
      K: number of particles drawn from each expert.
      prior_and_posterior_dist: ``laplace_with_softmax``, ``normal``, ``normal_with_softplus``,
        or a custom ``Family``.
      min_scale: floor of the scales of ``laplace_with_softmax`` (``softmax(raw) d + min_scale``)
        and of ``normal_with_softplus`` (``softplus(raw) + min_scale``). The other families have
        none, and refuse any value but the default.
      learn_prior: train the scales of the prior p(z). By default True, and False with private
        latents or clusters, as MultiVae's ``learn_shared_prior``.
      beta: weight of log p(z) - log q(z|X) in the log importance weights; 0 leaves only the
        likelihoods.
      loss: a key of ``mmvae_jax.maths.losses.LOSSES``: bound and gradient estimator in one name.
        The only default that differs from MultiVae's, whose ``dreg_looser`` can diverge.
      experts_per_step: number of experts that a training step draws particles from, chosen anew
        for each example among its observed ones; None for all (Hotti et al. 2024). Unbiased for
        the looser bounds and the elbo, and refused for tight ones. Evaluations use all experts.
      modalities_specific_dim: size p of the private latent w_m of every modality, or sizes by
        modality; 0 for none. With private latents the model is MMVAE+ (Palumbo et al. 2023): the
        networks of modality m have latents ``[u, w_m]`` of size ``latent_dim + p``.
      number_of_clusters: number of clusters of the prior p(u), whose locations and weights are
        trained (CMVAE, Palumbo et al. 2024); 1 for the prior of MMVAE.
      learn_modality_prior: train the scales of r_m(w), the distribution of the private latents of
        modalities that a particle is not drawn from.
      aggregation: components of q(z|X): ``moe`` for the mixture of experts, ``poe`` for the product
        of the experts and the prior (MVAE), ``mopoe`` for the mixture of the products of all
        subsets (MoPoE). The last two need a normal family, without private latents or clusters.
      reconstruction_option: distribution of the private latents of modalities that are generated
        and not given: ``joint_prior`` for p(w), ``single_prior`` for r_m(w).

    Raises:
      ValueError: naming the field, its value and the fix.

    Warns:
      UserWarning: if ``latent_dim`` is 1 under ``laplace_with_softmax``, whose scale is then
        constant.

    >>> config = MMVAEConfig(input_dims={"image": (28, 28, 1), "word": (8, 71)},
    ...                      decoders_dist={"word": "categorical"}, K=30)
    >>> MMVAEConfig.from_json(config.to_json()) == config
    True
    """

    input_dims: Mapping[str, tuple[int, ...]]
    n_modalities: int | None = None
    latent_dim: int = 10
    uses_likelihood_rescaling: bool = False
    rescale_factors: Mapping[str, float] | None = None
    decoders_dist: Mapping[str, LikelihoodSetting] | None = None
    decoder_dist_params: Mapping[str, Mapping[str, Any]] | None = None
    K: int = 10
    prior_and_posterior_dist: str | Family = "laplace_with_softmax"
    learn_prior: bool | None = None
    beta: float = 1.0
    loss: str = "adaptive_dreg_looser"
    min_scale: float = MIN_SCALE
    experts_per_step: int | None = None
    modalities_specific_dim: int | Mapping[str, int] = 0
    number_of_clusters: int = 1
    learn_modality_prior: bool = True
    reconstruction_option: str = "joint_prior"
    aggregation: str = "moe"

    def __post_init__(self) -> None:
        dims = checked_dims(self.input_dims)
        self._set("input_dims", dims)
        num = len(dims) if self.n_modalities is None else plain(self.n_modalities)
        self._set("n_modalities", num)
        if num != len(dims):
            raise ValueError(
                f"n_modalities is {num!r}, but input_dims has {len(dims)} "
                f"modalities {sorted(dims)}: leave n_modalities out, or make them agree"
            )
        for field in ("latent_dim", "K", "number_of_clusters"):
            self._set(field, check_count(field, getattr(self, field)))
        private = checked_private_dims(self.modalities_specific_dim, dims)
        self._set("modalities_specific_dim", private)
        has_private = self.axes.num_private > 0
        check_private_settings(has_private, self.learn_modality_prior, self.reconstruction_option)
        if self.learn_prior is None:
            self._set("learn_prior", self.number_of_clusters == 1 and not has_private)
        for field in ("uses_likelihood_rescaling", "learn_prior", "learn_modality_prior"):
            self._set(field, check_flag(field, getattr(self, field)))
        self._set("beta", check_not_negative("beta", self.beta))
        self._check_family()
        check_choice("loss", self.loss, tuple(LOSSES))
        check_aggregation(self)
        self._set("experts_per_step", checked_experts_per_step(self))
        given = by_modality("decoders_dist", self.decoders_dist or {}, dims)
        params = by_modality("decoder_dist_params", self.decoder_dist_params or {}, dims)
        likelihoods = checked_likelihoods(given, params, dims)
        self._set("decoders_dist", likelihoods)
        self._set("decoder_dist_params", checked_params(likelihoods, params))
        self._set(
            "rescale_factors",
            checked_factors(self.rescale_factors, self.uses_likelihood_rescaling, dims),
        )

    def _set(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)

    def _check_family(self) -> None:
        """Checks the family of the posteriors and the floor of its scales."""
        setting = self.prior_and_posterior_dist
        if not isinstance(setting, Family):
            check_choice("prior_and_posterior_dist", setting, tuple(FAMILIES))
        self._set("min_scale", check_positive("min_scale", self.min_scale))
        if self.min_scale != MIN_SCALE and setting not in FLOORED:
            raise ValueError(
                f"min_scale is {self.min_scale!r}, but the scales of {setting!r} have no floor: "
                f"leave min_scale out, or choose one of {list(FLOORED)}"
            )
        sizes = {"latent_dim": [self.latent_dim], "modalities_specific_dim": self.axes.private}
        for field in sizes:
            if 1 in sizes[field] and setting == "laplace_with_softmax":
                warnings.warn(
                    f"{field} is 1 under 'laplace_with_softmax', whose softmax over one axis gives "
                    "every posterior the scale 1: use 'normal' or 'normal_with_softplus' to train "
                    "it",
                    stacklevel=4,
                )

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in the order of the experts."""
        return tuple(self.input_dims)

    @property
    def axes(self) -> LatentAxes:
        """Shared and private axes of the latent z."""
        given = self.modalities_specific_dim
        sizes = given if isinstance(given, Mapping) else dict.fromkeys(self.input_dims, given)
        return LatentAxes(self.latent_dim, tuple(sizes.values()) if any(sizes.values()) else ())

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the components of q(z|X): the modalities, unless ``aggregation`` differs."""
        return component_names(self.aggregation, self.modalities)

    def network_dim(self, name: str) -> int:
        """Returns the size of the latent that the modality's networks have: u and its w."""
        axes = self.axes
        private = axes.private[self.modalities.index(name)] if axes.private else 0
        return self.latent_dim + private

    def likelihood(self, name: str) -> tuple[LikelihoodSetting, Mapping[str, Any]]:
        """Returns the modality's likelihood and its keyword parameters, with defaults filled in."""
        assert self.decoders_dist is not None, "filled in by __post_init__"
        assert self.decoder_dist_params is not None, "filled in by __post_init__"
        likelihood = self.decoders_dist[name]
        if isinstance(likelihood, MixedLikelihood):
            return likelihood, likelihood.params
        return likelihood, self.decoder_dist_params[name]

    @property
    def family(self) -> Family:
        """Family of the posteriors and the prior; the same object for equal settings."""
        return family_of(self.prior_and_posterior_dist, self.min_scale)

    @property
    def likelihood_factors(self) -> FrozenDict:
        """Factor of each log p(x_m|z): all 1 unless ``uses_likelihood_rescaling``."""
        if self.rescale_factors is not None:
            return FrozenDict(self.rescale_factors)
        if not self.uses_likelihood_rescaling:
            return FrozenDict(dict.fromkeys(self.input_dims, 1.0))
        sizes = {name: math.prod(dim) for name, dim in self.input_dims.items()}
        return FrozenDict({name: max(sizes.values()) / size for name, size in sizes.items()})

    def replace(self, **changes: Any) -> MMVAEConfig:
        """Returns a checked copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def with_all_experts(self) -> MMVAEConfig:
        """Returns the config of evaluations, which draw from all experts; mostly this very one."""
        return self if self.experts_per_step is None else self.replace(experts_per_step=None)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain dicts, tuples and numbers, as ``from_dict`` takes them."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: _plain(value) for name, value in fields.items()}

    def to_json(self) -> str:
        """Returns JSON text.

        Raises:
          ValueError: for a custom likelihood or family, which JSON cannot hold.
        """
        own = {f"decoders_dist[{name!r}]": x for name, x in (self.decoders_dist or {}).items()}
        for field, value in {
            **own,
            "prior_and_posterior_dist": self.prior_and_posterior_dist,
        }.items():
            if not isinstance(value, str | MixedLikelihood):
                raise ValueError(
                    f"{field} is {value!r}, which JSON cannot hold: save it in code and pass it "
                    "with config.replace(...)"
                )
        return json.dumps(self.to_dict(), indent=2)

    def describe(self) -> dict[str, Any]:
        """Returns the fields of ``to_json``, with names in the place of functions, to be read."""
        return json.loads(json.dumps(self.to_dict(), default=_name))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> MMVAEConfig:
        """Returns the config with these fields.

        Raises:
          ValueError: for unknown names, or fields that ``MMVAEConfig`` refuses.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise ValueError(f"unknown config fields {unknown}: the known ones are {known}")
        if "input_dims" not in fields:
            raise ValueError("input_dims is missing: give the shape of each modality")
        return cls(**fields)

    @classmethod
    def from_json(cls, text: str) -> MMVAEConfig:
        """Returns the config that ``to_json`` wrote."""
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError(f"config JSON holds a {type(fields).__name__}: it must be an object")
        return cls.from_dict(fields)


def _name(value: Any) -> str:
    return getattr(value, "__qualname__", type(value).__qualname__)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value.to_dict() if isinstance(value, Learned | MixedLikelihood) else value
