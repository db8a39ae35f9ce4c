"""The names of losses: a bound and a gradient estimator each."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class LossName(NamedTuple):
    """The bound and the gradient estimator that the name of a loss stands for."""

    bound: str
    estimator: str


LOSSES: Mapping[str, LossName] = MappingProxyType(
    {
        "iwae_looser": LossName("looser", "reparam"),
        "dreg_looser": LossName("looser", "dreg"),
        "stl_looser": LossName("looser", "stl"),
        "mixture_dreg_looser": LossName("looser", "mixture_dreg"),
        "adaptive_dreg_looser": LossName("looser", "adaptive_dreg"),
        "iwae": LossName("tight", "reparam"),
        "dreg": LossName("tight", "dreg"),
        "stl": LossName("tight", "stl"),
        "mixture_dreg": LossName("tight", "mixture_dreg"),
        "adaptive_dreg": LossName("tight", "adaptive_dreg"),
        "elbo": LossName("elbo", "reparam"),
    }
)
