"""Checks of a config's fields, which return the values that the config keeps."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmvae_jax.checks import (
    check_choice,
    check_count,
    check_flag,
    check_modalities,
    check_positive,
    plain,
)
from mmvae_jax.frozen_dict import FrozenDict
from mmvae_jax.maths.aggregation import AGGREGATIONS
from mmvae_jax.maths.losses import LOSSES

#: Largest number of modalities for products of all subsets: a step decodes K particles of each.
MOST_OF_SUBSETS = 8
#: Priors of the private latents of modalities that are generated and not given.
RECONSTRUCTION_OPTIONS = ("joint_prior", "single_prior")


def checked_dims(input_dims: Any) -> FrozenDict:
    """Returns the shapes of examples by modality.

    Raises:
      ValueError: for anything but a dict from names to tuples of sizes.
    """
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


def by_modality(field: str, given: Any, dims: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns ``given`` after a check that it maps known modalities."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{field} is {given!r}: give a dict by modality name")
    check_modalities(field, given, dims)
    return given


def checked_private_dims(given: Any, dims: Mapping[str, Any]) -> int | FrozenDict:
    """Returns the size of the private latents: one for all modalities, or one of each.

    Args:
      given: a size, or sizes by modality; 0 for none.
      dims: shapes by modality.

    Raises:
      ValueError: for sizes that are no integers of at least 0, and unknown or absent modalities.
    """
    if not isinstance(given, Mapping):
        return _checked_size("modalities_specific_dim", given)
    check_modalities("modalities_specific_dim", given, dims)
    if missing := [name for name in dims if name not in given]:
        raise ValueError(
            f"modalities_specific_dim lacks {missing}: give a size for every modality, 0 for none"
        )
    return FrozenDict(
        {name: _checked_size(f"modalities_specific_dim[{name!r}]", given[name]) for name in dims}
    )


def _checked_size(field: str, value: Any) -> int:
    return 0 if plain(value) == 0 else check_count(field, value)


def check_private_settings(
    has_private: bool, learn_modality_prior: bool, reconstruction_option: str
) -> None:
    """Checks the settings that need private latents.

    Raises:
      ValueError: for settings that would have no effect, or are unknown.
    """
    check_choice("reconstruction_option", reconstruction_option, RECONSTRUCTION_OPTIONS)
    check_flag("learn_modality_prior", learn_modality_prior)
    if has_private:
        return
    given = {
        "learn_modality_prior": (learn_modality_prior, True),
        "reconstruction_option": (reconstruction_option, "joint_prior"),
    }
    for field, (value, default) in given.items():
        if value != default:
            raise ValueError(
                f"{field} is {value!r}, but there are no private latents: leave it out, or give "
                "modalities_specific_dim"
            )


def checked_factors(given: Any, is_used: bool, dims: Mapping[str, Any]) -> FrozenDict | None:
    """Returns the factors of the log-likelihoods by modality, None for the default.

    Raises:
      ValueError: for factors that are not used, or not given for every modality.
    """
    if given is None:
        return None
    if not is_used:
        raise ValueError(
            f"rescale_factors is {dict(given)!r}, but uses_likelihood_rescaling is False: set it "
            "to True, or leave the factors out"
        )
    factors = by_modality("rescale_factors", given, dims)
    missing = [name for name in dims if name not in factors]
    if missing:
        raise ValueError(f"rescale_factors lacks {missing}: give a factor for every modality")
    checked = {n: check_positive(f"rescale_factors[{n!r}]", factors[n]) for n in factors}
    return FrozenDict({name: float(checked[name]) for name in dims})


def check_aggregation(config: Any) -> None:
    """Checks that the settings of an ``MMVAEConfig`` fit its aggregation of experts.

    Raises:
      ValueError: naming the field, its value and the fix.
    """
    kind, num = config.aggregation, len(config.input_dims)
    check_choice("aggregation", kind, AGGREGATIONS)
    if kind == "moe":
        return
    rules = (
        (
            config.prior_and_posterior_dist in ("normal", "normal_with_softplus"),
            f"prior_and_posterior_dist is {config.prior_and_posterior_dist!r}, whose products have "
            "no closed form: choose 'normal' or 'normal_with_softplus'",
        ),
        (not config.axes.num_private, "there are private latents: leave them out"),
        (config.number_of_clusters == 1, "there are clusters: leave number_of_clusters out"),
        (config.experts_per_step is None, "experts_per_step is given: leave it out"),
        (
            kind != "mopoe" or num <= MOST_OF_SUBSETS,
            f"{num} modalities have {2**num - 1} subsets: give at most {MOST_OF_SUBSETS}",
        ),
    )
    for is_met, problem in rules:
        if not is_met:
            raise ValueError(f"aggregation is {kind!r}, but {problem}, or choose 'moe'")


def checked_experts_per_step(config: Any) -> int | None:
    """Returns the number of experts that a training step of an ``MMVAEConfig`` draws from.

    Raises:
      ValueError: for more experts than modalities, and bounds that need all experts.
    """
    if config.experts_per_step is None:
        return None
    num, most = check_count("experts_per_step", config.experts_per_step), len(config.input_dims)
    if num > most:
        raise ValueError(f"experts_per_step is {num}: give at most {most}, one per modality")
    if LOSSES[config.loss].bound == "tight":
        raise ValueError(
            f"experts_per_step is {num}, but the bound of loss={config.loss!r} needs all: "
            f"choose '{config.loss}_looser', or leave experts_per_step out"
        )
    return num
