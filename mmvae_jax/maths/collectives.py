"""Collective operations of a computation whose examples and particles are spread over a mesh."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, PyTree, Shaped


class Shards(NamedTuple):
    """The mesh axes that examples and particles are spread over, inside ``jax.shard_map``; static.

    A device holds ``b / P`` examples and draws ``K / P`` particles of every expert, in the order of
    its place on the axes. Without axes there is one device, and every method returns its argument.

    Attributes:
      data: axis of the examples.
      particle: axis of the particles.
    """

    data: str | None = None
    particle: str | None = None

    def example_numbers(self, num_examples: int) -> Int[Array, " b"]:
        """Returns the numbers of the device's examples among those of all devices."""
        place, _ = _place(self.data)
        return place * num_examples + jnp.arange(num_examples)

    def num_all_examples(self, num_examples: int) -> int:
        """Returns the number of examples of all devices."""
        _, parts = _place(self.data)
        return num_examples * parts

    def particle_numbers(
        self, index: Int[Array, "g e"], K: int, num_examples: int
    ) -> Int[Array, "g e"]:
        """Returns the numbers, over all devices, of this one's particles ``(m K + k) B + b``."""
        if self == ALONE:
            return index
        row, b = index // num_examples, index % num_examples
        m, k = row // K, row % K
        (k_place, k_parts), (b_place, b_parts) = _place(self.particle), _place(self.data)
        rows = m * (K * k_parts) + k_place * K + k
        return rows * (num_examples * b_parts) + b_place * num_examples + b

    def num_own_particles(self, K: int, *, is_random: bool) -> int:
        """Returns the number of particles per expert that the device draws, of K.

        Raises:
          ValueError: if the axis does not divide K, or the decoders draw random numbers, which
            would be the same for the particles of every device.
        """
        _, parts = _place(self.particle)
        if K % parts:
            raise ValueError(
                f"K is {K}, which the {parts} devices on the mesh's axis {self.particle!r} cannot "
                "share: choose a multiple, or another mesh"
            )
        if parts > 1 and is_random:
            raise ValueError(
                f"the decoders draw random numbers, and the mesh's axis {self.particle!r} has "
                f"{parts} devices: use a mesh with particle=1"
            )
        return K // parts

    def own_key(self, key: PRNGKeyArray | None) -> PRNGKeyArray | None:
        """Returns the key of the device's examples, for networks that draw random numbers."""
        if key is None or self.data is None:
            return key
        return jax.random.fold_in(key, jax.lax.axis_index(self.data))

    def all_particles(self, x: Shaped[Array, "m k b"]) -> Shaped[Array, "m K b"]:
        """Returns the particles of all devices that share these examples."""
        if self.particle is None:
            return x
        return jax.lax.all_gather(x, self.particle, axis=1, tiled=True)

    def own_particles(self, x: Shaped[Array, "m K b"]) -> Shaped[Array, "m k b"]:
        """Returns the device's own part of ``all_particles``."""
        place, parts = _place(self.particle)
        K = x.shape[1] // parts
        return jax.lax.dynamic_slice_in_dim(x, place * K, K, axis=1)

    def mean_over_particles(self, means: PyTree) -> PyTree:
        """Returns the mean of the devices' means over their particles."""
        return means if self.particle is None else jax.lax.pmean(means, self.particle)

    def sum_over_examples(self, sums: PyTree) -> PyTree:
        """Returns the sum of the devices' sums over their examples."""
        return sums if self.data is None else jax.lax.psum(sums, self.data)

    def min_over_examples(self, values: PyTree) -> PyTree:
        """Returns the smallest of the devices' values."""
        return values if self.data is None else jax.lax.pmin(values, self.data)

    def sum_over_particles(self, parts: PyTree) -> PyTree:
        """Returns the sum of the devices' parts, each of its particles."""
        return parts if self.particle is None else jax.lax.psum(parts, self.particle)

    def sum_of_parts(self, parts: PyTree) -> PyTree:
        """Returns the sum over all devices, each with its part of the examples and particles."""
        axes = tuple(axis for axis in self if axis is not None)
        return jax.lax.psum(parts, axes) if axes else parts


#: One device.
ALONE = Shards()


def _place(axis: str | None) -> tuple[Int[Array, ""] | int, int]:
    """Returns the device's place on an axis, and the number of places."""
    return (0, 1) if axis is None else (jax.lax.axis_index(axis), jax.lax.axis_size(axis))
