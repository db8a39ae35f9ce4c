"""The parameters of likelihoods, fixed or trained: settings, checks and values."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, no_type_check

import jax.numpy as jnp
from jaxtyping import Array, Float

from mmvae_jax.checks import check_flag, check_positive, plain
from mmvae_jax.frozen_dict import FrozenDict

#: Values of parameters by modality and name.
LikelihoodParams = dict[str, dict[str, Float[Array, "..."]]]


@no_type_check  # at run time: the checks here say more than an annotation would
@dataclasses.dataclass(frozen=True)
class Learned:
    """A positive parameter of a likelihood that is trained with the model (sigma-VAE).

    The model holds a raw value, 0 at the start, in ``model.raw_likelihood_params``::

        value = floor + (initial - floor) exp(raw)

    A step of Adam thus changes the value by a factor that does not depend on its unit. Rybkin et
    al. (2021, arXiv 2006.13202) train one scale per modality in this way.

    Args:
      initial: value at the start of training.
      floor: smallest value. The density of a normal or Laplace grows without bound as its scale
        goes to 0, which decoders reach where data are constant, such as the border of an image.
        The default is a quarter of the step between two intensities of a byte, and a thousandth of
        a standardised column.
      per_feature: False for one value; True for an array ``[input_dim[-1]]``, one value for each
        column of a table or channel of an image, shared by the other axes.

    Raises:
      ValueError: naming the field, its value and the fix.

    >>> learned = {"sound": {"scale": mm.Learned(0.5, per_feature=True)}}
    >>> trained = mm.MMVAE(config.replace(decoder_dist_params=learned), rngs=nnx.Rngs(0))
    >>> trained.likelihood_params("sound")["scale"].tolist()
    [0.5, 0.5, 0.5, 0.5]
    """

    initial: float
    floor: float = 1e-3
    per_feature: bool = False

    def __post_init__(self) -> None:
        for name in ("initial", "floor"):
            object.__setattr__(self, name, check_positive(f"Learned.{name}", getattr(self, name)))
        if self.floor >= self.initial:
            raise ValueError(
                f"Learned.floor is {self.floor!r}, and initial {self.initial!r}: give a floor "
                "below the initial value"
            )
        per_feature = check_flag("Learned.per_feature", self.per_feature)
        object.__setattr__(self, "per_feature", per_feature)

    def raw(self, input_dim: tuple[int, ...]) -> Float[Array, "*features"]:
        """Returns the raw value at the start, for a modality of this shape."""
        return jnp.zeros(input_dim[-1:] if self.per_feature else ())

    def value(self, raw: Float[Array, "*features"]) -> Float[Array, "*features"]:
        """Returns the parameter for a raw value."""
        return self.floor + (self.initial - self.floor) * jnp.exp(raw)

    def to_dict(self) -> dict[str, Any]:
        """Returns the form in which JSON holds it: ``{"learned": 0.75, "floor": ...}``."""
        return {"learned": self.initial, "floor": self.floor, "per_feature": self.per_feature}


_SCALE = {"scale": 1.0}
_DISPERSION = {"dispersion": Learned(1.0, per_feature=True)}
#: Size of a library in draws; a number makes the decoder give shares of the library.
_LIBRARY = {"library_size": None}
#: The parameters that ``decoder_dist_params`` may set, and their defaults.
LIKELIHOOD_PARAMS: Mapping[str, Mapping[str, float | Learned | None]] = FrozenDict(
    {
        "normal": FrozenDict(_SCALE),
        "laplace": FrozenDict(_SCALE),
        "bernoulli": FrozenDict({}),
        "categorical": FrozenDict({}),
        "poisson": FrozenDict(_LIBRARY),
        "negative_binomial": FrozenDict(_DISPERSION | _LIBRARY),
        "zero_inflated_negative_binomial": FrozenDict(
            _DISPERSION | {"zero_odds": Learned(0.1, per_feature=True)} | _LIBRARY
        ),
    }
)


def checked_params(likelihoods: Mapping[str, Any], given: Mapping[str, Any]) -> FrozenDict:
    """Returns the parameters of every modality's likelihood, with defaults filled in.

    Args:
      likelihoods: likelihood of each modality, the name of a built-in one or a custom one.
      given: a config's ``decoder_dist_params``; a ``Learned`` may have the form of ``to_dict``.

    Raises:
      ValueError: for parameters that a built-in likelihood does not have, or that are no positive
        numbers.
    """
    filled = {}
    for name, likelihood in likelihoods.items():
        field, params = f"decoder_dist_params[{name!r}]", given.get(name, {})
        is_named = isinstance(likelihood, str)
        filled[name] = params_of(field, likelihood, params) if is_named else _plain(field, params)
    return FrozenDict(filled)


def params_of(field: str, likelihood: str, given: Any) -> FrozenDict:
    """Returns the parameters of a built-in likelihood, with defaults filled in.

    Args:
      field: name of the parameters, for errors.
      likelihood: name of the likelihood.
      given: parameters that differ from the defaults.

    Raises:
      ValueError: as ``checked_params``.
    """
    params = _plain(field, given)
    defaults = LIKELIHOOD_PARAMS[likelihood]
    check_known(field, likelihood, defaults, params)
    for param, value in params.items():
        is_optional = defaults[param] is None
        if is_optional and isinstance(value, Learned):
            raise ValueError(
                f"{field}[{param!r}] is {value!r}: give a number, which is not trained"
            )
        if not (isinstance(value, Learned) or (is_optional and value is None)):
            check_positive(f"{field}[{param!r}]", value)
    return FrozenDict({**defaults, **params})


def check_known(
    field: str, likelihood: object, known: Iterable[str], params: Iterable[str]
) -> None:
    """Raises ValueError unless the likelihood has all of the parameters."""
    known = sorted(known)
    if unknown := [param for param in params if param not in known]:
        raise ValueError(
            f"{field} sets {unknown[0]!r}, which the {likelihood} likelihood does not have: it "
            f"takes {known or 'no parameters'}"
        )


def _plain(field: str, given: Any) -> FrozenDict:
    """Returns parameters as Python's numbers, whatever the likelihood."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{field} is {given!r}: give a dict such as {{'scale': 0.75}}")
    return FrozenDict({param: plain(_from_json(value)) for param, value in given.items()})


def _from_json(value: Any) -> Any:
    """Returns the ``Learned`` that ``to_dict`` has written, and other values as they are."""
    if not isinstance(value, Mapping) or "learned" not in value:
        return value
    rest = {name: x for name, x in value.items() if name != "learned"}
    return Learned(value["learned"], **rest)
