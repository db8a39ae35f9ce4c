"""Loops over tiles: blocks of draws by examples, small enough for a device's memory."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int, PyTree


class TileRows(NamedTuple):
    """The draws of a tile.

    Attributes:
      number: number of each draw.
      counts: False for draws that pad the last tile.
    """

    number: Int[Array, " g"]
    counts: Bool[Array, " g"]


Step = Callable[[PyTree, TileRows], tuple[PyTree, Any]]


def over_tiles(
    of_examples: Callable[[Int[Array, " e"]], tuple[PyTree, Step]],
    num_draws: int,
    num_examples: int,
    size: int,
    *,
    width: int | None = None,
    num_active: Int[ArrayLike, ""] | None = None,
) -> tuple[PyTree, PyTree]:
    """Loops over all draws of all examples, a tile of at most ``size`` particles at a time.

    Args:
      of_examples: ``index [e] -> (carry [... e], step)`` with ``step(carry, rows) -> (carry,
        emitted [g e])``, called for the draws of these examples one tile after another.
      num_draws: number of draws of every example.
      num_examples: number b of examples.
      size: number of particles in a tile.
      width: number of examples in a tile, to have fewer than ``size``.
      num_active: number of examples that count. Tiles without any of these are skipped, and give
        zeros.

    Returns:
      The last carry of all examples ``[... b]``, and the emitted values ``[draws b]``.
    """
    columns, _ = in_parts(num_examples, min(size, width or size))
    rows = TileRows(*in_parts(num_draws, max(1, size // columns.shape[1])))

    def scan(index: Int[Array, " e"]) -> tuple[PyTree, PyTree]:
        start, step = of_examples(index)
        carry, emitted = jax.lax.scan(step, start, rows)
        return carry, jax.tree.map(lambda a: a.reshape(-1, a.shape[2])[:num_draws], emitted)

    def scan_or_skip(index: Int[Array, " e"]) -> tuple[PyTree, PyTree]:
        if num_active is None:
            return scan(index)
        like = jax.eval_shape(scan, index)
        skipped = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
        return jax.lax.cond(index[0] < num_active, scan, lambda _: skipped, index)

    def joined(a: Array) -> Array:
        a = jnp.moveaxis(a, 0, -2)
        return a.reshape(*a.shape[:-2], -1)[..., :num_examples]

    return jax.tree.map(joined, jax.lax.map(scan_or_skip, columns))


def default_tile_size(*, has_convolutions: bool) -> int:
    """Returns the number of particles per decoder call: few on CPU, whose caches they fit."""
    if jax.default_backend() != "cpu":
        return 4096
    return 64 if has_convolutions else 256


def in_parts(total: int, size: int) -> tuple[Int[Array, "t n"], Bool[Array, "t n"]]:
    """Returns numbers from 0 in parts of equal size, the last number repeated as padding.

    The second array is False for the padding.
    """
    num_parts = math.ceil(total / size)
    number = jnp.arange(num_parts * math.ceil(total / num_parts)).reshape(num_parts, -1)
    return jnp.minimum(number, total - 1), number < total
