"""Gradient estimators of a bound with respect to the encoders, each as its own piece.

Write ``w~`` for the normalised weights, held constant. Decoders and prior always receive
``sum w~ d(log w)/d(theta)``. Encoder parameters reach log w along two paths:

- through the particle, ``z = loc_m + scale_m noise``: the *z-path*;
- through the densities of the mixture in the denominator, ``log q_mix(z)``: the *direct* path.

An estimator says which direct paths are differentiated, by which factor the z-path
``w~ d(log w)/dz`` is multiplied, and whether a term ``-beta w~ d(r_m)/dz`` is added to it.
``ADAPTIVE_DREG`` interpolates between two of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Estimator(NamedTuple):
    """A gradient estimator of a bound for the encoder parameters.

    Attributes:
      direct: ``own [j *n] -> [j *n]``, True if the parameters of q_j inside log q_mix are
        differentiated; ``own`` is True if particle n was drawn from expert j.
      z_factor: ``(w~ [*n], r_m [*n], beta) -> [*n]``: multiplies the z-path.
      uses_responsibility: True if ``-beta w~ d(r_m)/dz`` is added to the z-path.
      is_adaptive: True if the change of the z-path is a control variate, with a coefficient from
        the other examples; the direct path is then the one without it.
    """

    direct: Callable[[Bool[Array, "j *n"]], Bool[Array, "j *n"]]
    z_factor: Callable[[Array, Array, Any], Float[Array, "*n"]]
    uses_responsibility: bool = False
    is_adaptive: bool = False


def _everywhere(own: Bool[Array, "j *n"]) -> Bool[Array, "j *n"]:
    return jnp.ones_like(own)


def _nowhere(own: Bool[Array, "j *n"]) -> Bool[Array, "j *n"]:
    return jnp.zeros_like(own)


def _other_experts(own: Bool[Array, "j *n"]) -> Bool[Array, "j *n"]:
    return ~own


REPARAM = Estimator(_everywhere, lambda w, r, beta: jnp.ones_like(w))
"""Plain autodiff of the bound (Burda et al. 2016); its signal-to-noise ratio falls with K."""

STL = Estimator(_nowhere, lambda w, r, beta: jnp.ones_like(w))
"""Sticking the landing (Roeder et al. 2017): the direct path is dropped. Biased for K > 1."""

DREG = Estimator(_nowhere, lambda w, r, beta: (1 - beta) + beta * w)
"""Doubly reparameterised (Tucker et al. 2019, eq. 6): z-path weights w~^2.

The direct path is traded for a pathwise one as if log w had the density of the expert that was
sampled in its denominator. Exact for one expert, biased for a mixture.
"""

MIXTURE_DREG = Estimator(
    _other_experts, lambda w, r, beta: (1 - beta * r) + beta * r * w, uses_responsibility=True
)
"""The doubly reparameterised gradient of a mixture of experts: unbiased.

The direct path of expert m weighs its score by ``f = w~ r_m``. Only that score belongs to the
density that is sampled from, so only to it applies
``E_{q_m}[f d(log q_m)/d(phi)] = E_{q_m}[df/dz dz/d(phi)]``::

    d(w~ r_m)/dz = r_m (w~ - w~^2) d(log w)/dz + w~ d(r_m)/dz

Subtracted, times beta, from the reparameterised z-path ``w~ d(log w)/dz``, this gives the factor
``(1 - beta r_m) + beta r_m w~`` and the term in ``d(r_m)/dz``; the direct paths of the experts
that the particle was not drawn from stay. With one expert r = 1, and it is DReG.
"""

ADAPTIVE_DREG = MIXTURE_DREG._replace(direct=_everywhere, is_adaptive=True)
"""The reparameterised gradient with the step to ``MIXTURE_DREG`` as a control variate: unbiased.

The difference of the two, for the parameters of expert m, is::

    Delta = sum_k f_k d(log q_m(z_k))/d(phi) - d(f_k)/dz dz/d(phi),    f = beta w~ r_m

whose mean is zero on every latent axis by itself, because q_m factorises over the axes. The
estimator is ``reparam + c Delta``. Its c comes from the other examples of the batch
(``mmvae_jax.maths.control_variate``), and makes it as quiet as the quieter of the two.
"""

ESTIMATORS: dict[str, Estimator] = {
    "reparam": REPARAM,
    "stl": STL,
    "dreg": DREG,
    "mixture_dreg": MIXTURE_DREG,
    "adaptive_dreg": ADAPTIVE_DREG,
}
