"""The settings that ``decoders_dist`` takes: names, custom likelihoods, and parts of columns."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, no_type_check

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmvae_jax.checks import check_choice, check_count
from mmvae_jax.frozen_dict import FrozenDict
from mmvae_jax.likelihood_params import LIKELIHOOD_PARAMS, Learned, params_of
from mmvae_jax.maths.likelihoods import LIKELIHOODS, Likelihood, of_entries

CustomLikelihood = Likelihood | Callable[..., Any]


class LikelihoodPart(NamedTuple):
    """Columns of a mixed table that share a built-in likelihood.

    Attributes:
      likelihood: name of the likelihood.
      size: number of columns; of a categorical, the number of its classes.
      params: parameters of the likelihood, as in ``decoder_dist_params``.
    """

    likelihood: str
    size: int
    params: Mapping[str, Any] = FrozenDict({})


@no_type_check  # at run time: the checks here say more than an annotation would
@dataclasses.dataclass(frozen=True)
class MixedLikelihood:
    """The likelihood of a table whose columns are of several kinds, side by side in one array.

    The parts are consecutive slices of the last axis: numbers, binary columns, counts, and blocks
    of one-hot classes, one block per categorical column. The log density is the sum over parts.

    Args:
      parts: ``LikelihoodPart``, or tuples ``(likelihood, size)`` and
        ``(likelihood, size, params)``. A ``Learned`` parameter with ``per_feature`` has one value
        for each column of its part. Counts have no ``library_size`` here.

    Raises:
      ValueError: naming the part, its value and the fix.

    >>> clinical = mm.MixedLikelihood([("normal", 3, {"scale": mm.Learned(1.0, per_feature=True)}),
    ...                                ("bernoulli", 2), ("categorical", 4), ("poisson", 1)])
    >>> clinical.size
    10
    >>> mixed = mm.MMVAEConfig(input_dims={"clinical": (10,), "rna": (50,)},
    ...                        decoders_dist={"clinical": clinical})
    >>> mm.MMVAEConfig.from_json(mixed.to_json()) == mixed
    True
    """

    parts: Sequence[Any]

    def __post_init__(self) -> None:
        if not isinstance(self.parts, Sequence) or isinstance(self.parts, str) or not self.parts:
            raise ValueError(
                f"MixedLikelihood.parts is {self.parts!r}: give a list of (likelihood, size), such "
                "as [('normal', 3), ('categorical', 4)]"
            )
        parts = tuple(_checked_part(index, part) for index, part in enumerate(self.parts))
        object.__setattr__(self, "parts", parts)

    @property
    def size(self) -> int:
        """Number of columns, the last entry of ``input_dims``."""
        return sum(part.size for part in self.parts)

    @property
    def columns(self) -> tuple[tuple[str, slice], ...]:
        """Name of the likelihood and slice of the last axis of every part."""
        ends = [sum(part.size for part in self.parts[: i + 1]) for i in range(len(self.parts))]
        return tuple(
            (part.likelihood, slice(end - part.size, end))
            for part, end in zip(self.parts, ends, strict=True)
        )

    @property
    def params(self) -> FrozenDict:
        """Parameters of all parts, under their name and the number of the part: ``scale_0``."""
        return FrozenDict(
            {
                f"{name}_{index}": value
                for index, part in enumerate(self.parts)
                for name, value in part.params.items()
            }
        )

    @property
    def sizes(self) -> dict[str, int]:
        """Number of columns of the part that each of ``params`` belongs to."""
        return {name: self.parts[int(name.rpartition("_")[2])].size for name in self.params}

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood, whose functions take ``params`` by keyword."""
        return of_entries(self._entry_log_prob, self._sample, self._mean)

    def to_dict(self) -> dict[str, Any]:
        """Returns the form in which JSON holds it: ``{"parts": [["normal", 3, {...}], ...]}``."""
        return {
            "parts": [
                [likelihood, size, {name: _plain(value) for name, value in params.items()}]
                for likelihood, size, params in self.parts
            ]
        }

    def __str__(self) -> str:
        return " + ".join(f"{part.likelihood} ({part.size})" for part in self.parts)

    def _split(self, params: Mapping[str, Any]) -> list[tuple[Any, slice, dict[str, Any]]]:
        """Returns likelihood, columns and parameters of every part."""
        return [
            (
                LIKELIHOODS[name],
                columns,
                {param: params[f"{param}_{index}"] for param in self.parts[index].params},
            )
            for index, (name, columns) in enumerate(self.columns)
        ]

    def _entry_log_prob(
        self, decoded: Float[Array, "*dim"], x: Float[Array, "*dim"], **params: Any
    ) -> Float[Array, " entries"]:
        return jnp.concatenate(
            [
                part.entry_log_prob(decoded[..., columns], x[..., columns], **own)
                for part, columns, own in self._split(params)
            ]
        )

    def _sample(self, key: Array, decoded: Array, **params: Any) -> Array:
        keys = jax.random.split(key, len(self.parts))
        draws = [
            part.sample(keys[index], decoded[..., columns], **own)
            for index, (part, columns, own) in enumerate(self._split(params))
        ]
        return jnp.concatenate(draws, -1)

    def _mean(self, decoded: Array, **params: Any) -> Array:
        means = [
            part.mean(decoded[..., columns], **own) for part, columns, own in self._split(params)
        ]
        return jnp.concatenate(means, -1)


#: A value of ``decoders_dist``.
LikelihoodSetting = str | MixedLikelihood | CustomLikelihood


def likelihood_of(setting: LikelihoodSetting) -> Likelihood:
    """Returns the likelihood that a setting in ``decoders_dist`` names.

    A function is the log density of a likelihood without draws.
    """
    if isinstance(setting, str):
        return LIKELIHOODS[setting]
    if isinstance(setting, MixedLikelihood):
        return setting.likelihood
    return setting if isinstance(setting, Likelihood) else Likelihood(setting)


def columns_of(setting: LikelihoodSetting) -> tuple[tuple[str, slice], ...]:
    """Returns the built-in likelihoods of a modality, and the slices of its last axis.

    A built-in likelihood has all columns, a custom one gives an empty tuple.
    """
    if isinstance(setting, MixedLikelihood):
        return setting.columns
    return ((setting, slice(None)),) if isinstance(setting, str) else ()


def checked_likelihoods(
    given: Mapping[str, Any],
    params: Mapping[str, Any],
    input_dims: Mapping[str, tuple[int, ...]],
) -> FrozenDict:
    """Returns the likelihood of every modality, normal by default.

    Args:
      given: a config's ``decoders_dist``; a ``MixedLikelihood`` may have the form of ``to_dict``.
      params: the config's ``decoder_dist_params``.
      input_dims: shape of one example of each modality.

    Raises:
      ValueError: for unknown names, and a ``MixedLikelihood`` that does not fit its modality.
    """
    checked = {}
    for name, dim in input_dims.items():
        field, setting = f"decoders_dist[{name!r}]", given.get(name, "normal")
        if isinstance(setting, Mapping) and set(setting) == {"parts"}:
            setting = MixedLikelihood(setting["parts"])
        if isinstance(setting, MixedLikelihood):
            _check_mixed(field, setting, dim)
            _check_no_params(f"decoder_dist_params[{name!r}]", params.get(name))
        elif not isinstance(setting, Likelihood) and not callable(setting):
            check_choice(field, setting, tuple(LIKELIHOOD_PARAMS))
        checked[name] = setting
    return FrozenDict(checked)


def _check_mixed(field: str, setting: MixedLikelihood, dim: tuple[int, ...]) -> None:
    if setting.size != dim[-1]:
        raise ValueError(
            f"{field} is {setting}, {setting.size} columns, but the modality's input_dims are "
            f"{dim}: let the parts cover its last axis"
        )


def _check_no_params(field: str, params: Any) -> None:
    if params:
        raise ValueError(
            f"{field} is {params!r}: give the parameters of a MixedLikelihood in its parts, "
            "(likelihood, size, params)"
        )


def _checked_part(index: int, part: Any) -> LikelihoodPart:
    field = f"MixedLikelihood.parts[{index}]"
    if not isinstance(part, Sequence) or isinstance(part, str) or len(part) not in (2, 3):
        raise ValueError(
            f"{field} is {part!r}: give (likelihood, size) or (likelihood, size, params)"
        )
    likelihood, size, params = LikelihoodPart(*part)
    check_choice(f"{field}.likelihood", likelihood, tuple(LIKELIHOOD_PARAMS))
    size = check_count(f"{field}.size", size)
    checked = params_of(f"{field}.params", likelihood, params)
    if checked.get("library_size") is not None:
        raise ValueError(
            f"{field}.params['library_size'] is {checked['library_size']!r}: give counts of a "
            "library a modality of their own"
        )
    given = {name: value for name, value in checked.items() if value is not None}
    return LikelihoodPart(likelihood, size, FrozenDict(given))


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, Learned) else value
