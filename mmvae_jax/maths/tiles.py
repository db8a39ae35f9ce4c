"""Loops over tiles: blocks of draws by examples, small enough for a device's memory."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int, PyTree


class Rows(NamedTuple):
    """Some draws of a tile.

    Attributes:
      number: of each.
      counts: False for those that fill up the last tile.
    """

    number: Int[Array, " g"]
    counts: Bool[Array, " g"]


Step = Callable[[PyTree, Rows], tuple[PyTree, Any]]


def over_tiles(
    of_examples: Callable[[Int[Array, " e"]], tuple[PyTree, Step]],
    num_draws: int,
    num_examples: int,
    size: int,
    *,
    width: int | None = None,
    num_active: Int[ArrayLike, ""] | None = None,
) -> tuple[PyTree, PyTree]:
    """Go through all draws of all examples, a tile of at most ``size`` particles at a time.

    Args:
      of_examples: ``index [e] -> (carry [... e], step)`` with ``step(carry, rows) -> (carry,
        emitted [g e])``, called for the draws of these examples one tile after another.
      num_draws: of every example.
      num_examples: b.
      size: particles of a tile.
      width: examples of a tile, if there should be fewer of them.
      num_active: tiles without any of the first so many examples are skipped; zeros come out.

    Returns:
      The last carry of all examples ``[... b]``, and what was emitted ``[draws b]``.
    """
    columns, _ = _cut(num_examples, min(size, width or size))
    rows = Rows(*_cut(num_draws, max(1, size // columns.shape[1])))

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


def _cut(total: int, size: int) -> tuple[Int[Array, "t n"], Bool[Array, "t n"]]:
    """Numbers from 0 on in parts of equal size, the last one repeated to fill them."""
    num_parts = math.ceil(total / size)
    number = jnp.arange(num_parts * math.ceil(total / num_parts)).reshape(num_parts, -1)
    return jnp.minimum(number, total - 1), number < total
