"""Conversion of the parameters that MultiVae's models have beside their networks: the priors."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmvae_jax.interop import settings
from mmvae_jax.interop.layers import Shape, shape_differences
from mmvae_jax.model import MMVAE


class Target(NamedTuple):
    """The place of a parameter of MultiVae's.

    Attributes:
      shape: shape that it has in MultiVae.
      variable: variable here that has it, or has several, one after the other, as its rows; None
        for a location that is 0 here.
    """

    shape: Shape
    variable: nnx.Variable | None


def set_priors(model: MMVAE, name: str, params: Mapping[str, np.ndarray]) -> None:
    """Sets the parameters of the model's priors.

    Args:
      model: model to change.
      name: name of MultiVae's config.
      params: MultiVae's parameters except those of the networks.

    Raises:
      ValueError: for other names or shapes than MultiVae's, and locations other than 0.
    """
    targets = TARGETS[name](model)
    expected = {path: target.shape for path, target in targets.items()}
    if found := shape_differences(expected, {path: x.shape for path, x in params.items()}):
        raise ValueError(
            f"name is {name!r}, but the parameters beside the networks have {len(found)} "
            f"differences, such as {'; '.join(found[:3])}: give a model that MultiVae 1.0 saved, "
            "and its config"
        )
    rows = {}
    for path, target in targets.items():
        if target.variable is not None:
            rows.setdefault(id(target.variable), (target.variable, []))[1].append(params[path])
        elif params[path].any():
            raise ValueError(
                f"{path} is {params[path].tolist()}: only priors of location 0 are converted; "
                "MultiVae 1.0 trains no other, except locations of clusters"
            )
    for variable, values in rows.values():
        variable.set_value(jnp.asarray(np.concatenate(values).reshape(variable.shape)))


def _centred(loc: str, log_var: str, variable: nnx.Variable) -> dict[str, Target]:
    """Returns the targets of a distribution at 0, whose raw scale is a row in MultiVae."""
    shape = (1, *variable.shape)
    return {loc: Target(shape, None), log_var: Target(shape, variable)}


def _private(model: MMVAE, prefix: str = "") -> dict[str, Target]:
    """Returns the targets of all r_m(w)."""
    targets = {}
    for name in model.config.modalities:
        names = f"{prefix}mean_priors.{name}", f"{prefix}logvars_priors.{name}"
        targets |= _centred(*names, model.private_log_var[name])
    return targets


def _mmvae(model: MMVAE) -> dict[str, Target]:
    return _centred("prior_mean", "prior_log_var", model.prior_log_var)


def _mmvae_plus(model: MMVAE) -> dict[str, Target]:
    # "shared" is the prior of [u, w], with one w for all modalities, as here.
    names = "mean_priors.shared", "logvars_priors.shared"
    return _private(model) | _centred(*names, model.prior_log_var)


def _cmvae(model: MMVAE) -> dict[str, Target]:
    logits, loc, log_var = (model.clusters[name] for name in ("logits", "loc", "log_var"))
    num, dim = loc.shape
    clusters = {"_pc_params": Target((num,), logits)}
    for name, variable in {"mean_clusters": loc, "logvar_clusters": log_var}.items():
        clusters |= {f"{name}.{c}": Target((1, dim), variable) for c in range(num)}
    private = _centred("w_mean_prior", "w_logvar_prior", model.prior_log_var)
    return _private(model, "r_") | private | clusters


#: Functions of a model that return the targets by MultiVae's names, by the name of the config.
TARGETS: Mapping[str, Callable[[MMVAE], dict[str, Target]]] = {
    settings.MMVAE: _mmvae,
    settings.MMVAE_PLUS: _mmvae_plus,
    settings.CMVAE: _cmvae,
}
