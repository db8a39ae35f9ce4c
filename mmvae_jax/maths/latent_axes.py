"""The axes of a latent ``z = [u, w_1, ..., w_M]``: a shared part, and a private one per modality.

A model without private latents has ``z = u``. In a model that has some (MMVAE+, Palumbo et al.
2023), decoder j receives ``[u, w_j]``. A particle of expert m has ``u ~ q_m(u|x_m)`` and
``w_m ~ q_m(w|x_m)``, and the other modalities' ``w_j ~ r_j(w)``. Location and scale of all axes of
a particle thus are the row of its expert in a table ``[m b d]``, and a particle is one draw of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from mmvae_jax.maths.distributions import Family
from mmvae_jax.maths.weights import Experts


class LatentAxes(NamedTuple):
    """Sizes of the parts of a latent; static.

    Attributes:
      num_shared: size of u.
      private: size of each w_j, in the order of the modalities; empty without private latents.
    """

    num_shared: int
    private: tuple[int, ...] = ()

    @property
    def num_private(self) -> int:
        """Size of all w_j together."""
        return sum(self.private)

    @property
    def size(self) -> int:
        """Size of z."""
        return self.num_shared + self.num_private

    def shared_part(self, tree: PyTree) -> PyTree:
        """Returns the shared axes of all arrays ``[..., d]``."""
        return jax.tree.map(lambda a: a[..., : self.num_shared], tree)

    def private_part(self, tree: PyTree) -> PyTree:
        """Returns the private axes of all arrays ``[..., d]``."""
        return jax.tree.map(lambda a: a[..., self.num_shared :], tree)

    def private_of(self, z: Float[Array, "*n d"], j: int) -> Float[Array, "*n p"]:
        """Returns w_j."""
        start = self.num_shared + sum(self.private[:j])
        return z[..., start : start + self.private[j]]

    def decoder_input(self, z: Float[Array, "*n d"], j: int) -> Float[Array, "*n e"]:
        """Returns the input ``[u, w_j]`` of decoder j."""
        if not self.num_private:
            return z
        return jnp.concatenate([self.shared_part(z), self.private_of(z, j)], axis=-1)

    def owners(self) -> Int[Array, " p"]:
        """Returns the number of the modality that each private axis belongs to."""
        numbers = [number for number, size in enumerate(self.private) for _ in range(size)]
        return jnp.asarray(numbers, int)

    def is_own(self, source: Int[Array, "*n"]) -> Bool[Array, "*n p"]:
        """Returns True for the private axes of the expert that each particle is drawn from."""
        return source[..., None] == self.owners().reshape(*[1] * source.ndim, -1)

    def by_axis(
        self, source: Int[Array, "*n"], shared: Float[Array, "*n"], own: Float[Array, "*n"]
    ) -> Float[Array, "*n d"]:
        """Returns factors of all axes of particles: of u, of the own w_m, and 1 for the other w_j.

        Without private latents these are ``[*n 1]``, which broadcasts.
        """
        if not self.num_private:
            return shared[..., None]
        of_private = jnp.where(self.is_own(source), own[..., None], 1)
        of_shared = jnp.broadcast_to(shared[..., None], (*shared.shape, self.num_shared))
        return jnp.concatenate([of_shared, of_private], axis=-1)


def private_log_probs(
    family: Family,
    axes: LatentAxes,
    z: Float[Array, "*n d"],
    loc: Float[Array, "*#n p"],
    scale: Float[Array, "*#n p"],
) -> Float[Array, "*n p"]:
    """Returns the log density of every private axis: a family factorises over its axes."""
    return family.log_prob(axes.private_part(z)[..., None], loc[..., None], scale[..., None])


def own_private_log_prob(
    family: Family,
    axes: LatentAxes,
    source: Int[Array, "*n"],
    z: Float[Array, "*n d"],
    own: Experts,
) -> Float[Array, "*n"]:
    """Returns log q_m(w_m|x_m) of the expert m that each particle is drawn from.

    Args:
      family: posterior family.
      axes: axes of the latent.
      source: number of the expert of each particle.
      z: particles.
      own: location and scale of each particle, ``[*n d]``.
    """
    of_axes = private_log_probs(family, axes, z, *axes.private_part(own))
    return jnp.where(axes.is_own(source), of_axes, 0).sum(-1)


def own_log_probs(
    family: Family,
    axes: LatentAxes,
    source: Int[Array, "*n"],
    z: Float[Array, "*n d"],
    own: Experts,
) -> tuple[Float[Array, "*n"], ...]:
    """Returns ``(log q_m(u|x_m), log q_m(w_m|x_m))``, the second with private latents only."""
    of_shared = family.log_prob(axes.shared_part(z), *axes.shared_part(own))
    if not axes.num_private:
        return (of_shared,)
    return of_shared, own_private_log_prob(family, axes, source, z, own)


def expert_table(
    shared: Experts, own: Sequence[tuple[Array, Array]], others: Sequence[Array]
) -> Experts:
    """Returns location and scale of all axes of each expert's particles, ``[m b d]``.

    Args:
      shared: posteriors of u.
      own: location and scale ``[b p]`` of each modality's private latent.
      others: scale ``[p]`` of each r_j(w), the distribution of w_j in other experts' particles.
    """
    locs, scales = [shared.loc], [shared.scale]
    for number, ((loc, scale), of_others) in enumerate(zip(own, others, strict=True)):
        is_own = (jnp.arange(len(own)) == number)[:, None, None]
        locs.append(jnp.where(is_own, loc[None], 0))
        scales.append(jnp.where(is_own, scale[None], of_others[None, None]))
    return Experts(jnp.concatenate(locs, axis=-1), jnp.concatenate(scales, axis=-1))


def with_private(
    axes: LatentAxes, experts: Experts, private: Experts, is_kept: Bool[Array, "m #b p"]
) -> Experts:
    """Returns the table of experts with other private axes, where these are not kept.

    Args:
      axes: axes of the latent.
      experts: table ``[m b d]``.
      private: location and scale of private axes, ``[b p]`` or ``[1 p]``.
      is_kept: True for entries that stay.
    """

    def joined(table: Array, other: Array) -> Array:
        kept = jnp.where(is_kept, axes.private_part(table), other[None])
        return jnp.concatenate([axes.shared_part(table), kept], axis=-1)

    return jax.tree.map(joined, experts, private)


def with_own_private(
    axes: LatentAxes, experts: Experts, available: Bool[Array, "m b"], scale: Float[Array, " p"]
) -> Experts:
    """Returns the table of experts in which every row has all available private posteriors.

    A draw of any row has ``w_j ~ q_j(w|x_j)`` for every available modality j. The w_j of other
    modalities have location 0 and the given scale.
    """
    if not axes.num_private:
        return experts
    owners, private = axes.owners(), axes.private_part(experts)
    places = jnp.arange(axes.num_private)
    is_given = available[owners].T  # [b p]
    loc, own_scale = (a[owners, :, places].T for a in private)
    given = Experts(
        jnp.where(is_given, loc, 0), jnp.where(is_given, own_scale, scale[None].astype(loc.dtype))
    )
    return with_private(axes, experts, given, jnp.zeros((1, 1, 1), bool))
