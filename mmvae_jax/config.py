"""Settings of an MMVAE: checked when made, immutable afterwards."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Mapping
from typing import Any, no_type_check

import numpy as np

from mmvae_jax.checks import (
    check_choice,
    check_count,
    check_flag,
    check_modalities,
    check_not_negative,
    check_positive,
    plain,
)
from mmvae_jax.frozen_dict import FrozenDict
from mmvae_jax.likelihood_params import Learned, checked_params
from mmvae_jax.likelihood_settings import LikelihoodSetting, MixedLikelihood, checked_likelihoods
from mmvae_jax.maths.distributions import FAMILIES, FLOORED, MIN_SCALE, Family, family_of
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
      learn_prior: train the prior's scale.
      beta: weight of log p(z) - log q(z|X) in the log importance weights; 0 leaves only the
        likelihoods.
      loss: a key of ``mmvae_jax.maths.losses.LOSSES``: bound and gradient estimator in one name.
        The only default that differs from MultiVae's, whose ``dreg_looser`` can diverge.
      experts_per_step: number of experts that a training step draws particles from, chosen anew
        for each example among its observed ones; None for all (Hotti et al. 2024). Unbiased for
        the looser bounds and the elbo, and refused for tight ones. Evaluations use all experts.

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
    learn_prior: bool = True
    beta: float = 1.0
    loss: str = "adaptive_dreg_looser"
    min_scale: float = MIN_SCALE
    experts_per_step: int | None = None

    def __post_init__(self) -> None:
        dims = _checked_dims(self.input_dims)
        self._set("input_dims", dims)
        num = len(dims) if self.n_modalities is None else plain(self.n_modalities)
        self._set("n_modalities", num)
        if num != len(dims):
            raise ValueError(
                f"n_modalities is {num!r}, but input_dims has {len(dims)} "
                f"modalities {sorted(dims)}: leave n_modalities out, or make them agree"
            )
        for field in ("latent_dim", "K"):
            self._set(field, check_count(field, getattr(self, field)))
        for field in ("uses_likelihood_rescaling", "learn_prior"):
            self._set(field, check_flag(field, getattr(self, field)))
        self._set("beta", check_not_negative("beta", self.beta))
        self._check_family()
        check_choice("loss", self.loss, tuple(LOSSES))
        self._check_experts_per_step()
        given = _named("decoders_dist", self.decoders_dist or {}, dims)
        params = _named("decoder_dist_params", self.decoder_dist_params or {}, dims)
        likelihoods = checked_likelihoods(given, params, dims)
        self._set("decoders_dist", likelihoods)
        self._set("decoder_dist_params", checked_params(likelihoods, params))
        self._set("rescale_factors", self._checked_factors())

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
        if self.latent_dim == 1 and setting == "laplace_with_softmax":
            warnings.warn(
                "latent_dim is 1 under 'laplace_with_softmax', whose softmax over one axis gives "
                "every posterior the scale 1: use 'normal' or 'normal_with_softplus' to train it",
                stacklevel=4,
            )

    def _check_experts_per_step(self) -> None:
        most = len(self.input_dims)
        if self.experts_per_step is None:
            return
        num = check_count("experts_per_step", self.experts_per_step)
        self._set("experts_per_step", num)
        if num > most:
            raise ValueError(f"experts_per_step is {num}: give at most {most}, one per modality")
        if LOSSES[self.loss].bound == "tight":
            raise ValueError(
                f"experts_per_step is {num}, but the bound of loss={self.loss!r} needs all: "
                f"choose '{self.loss}_looser', or leave experts_per_step out"
            )

    def _checked_factors(self) -> FrozenDict | None:
        if self.rescale_factors is None:
            return None
        if not self.uses_likelihood_rescaling:
            raise ValueError(
                f"rescale_factors is {dict(self.rescale_factors)!r}, but uses_likelihood_rescaling "
                "is False: set it to True, or leave the factors out"
            )
        factors = _named("rescale_factors", self.rescale_factors, self.input_dims)
        missing = [name for name in self.input_dims if name not in factors]
        if missing:
            raise ValueError(f"rescale_factors lacks {missing}: give a factor for every modality")
        checked = {n: check_positive(f"rescale_factors[{n!r}]", factors[n]) for n in factors}
        return FrozenDict({name: float(checked[name]) for name in self.input_dims})

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in the order of the experts."""
        return tuple(self.input_dims)

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


def _checked_dims(input_dims: Any) -> FrozenDict:
    if not isinstance(input_dims, Mapping) or not input_dims:
        raise ValueError(
            f"input_dims is {input_dims!r}: give a dict from modality name to the shape of one "
            'example, such as {"image": (28, 28, 1)}'
        )
    dims = {}
    for name, dim in input_dims.items():
        if not isinstance(name, str) or name in ("", "all") or "/" in name:
            raise ValueError(
                f"input_dims has the modality name {name!r}: give a non-empty string without '/', "
                "other than 'all'"
            )
        if not isinstance(dim, tuple | list | np.ndarray) or not len(dim):
            raise ValueError(f"input_dims[{name!r}] is {dim!r}: give a tuple of sizes, like (10,)")
        dims[name] = tuple(check_count(f"input_dims[{name!r}]", size) for size in dim)
    return FrozenDict(dims)


def _named(field: str, given: Any, dims: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns ``given`` after a check that it maps known modalities."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{field} is {given!r}: give a dict by modality name")
    check_modalities(field, given, dims)
    return given
