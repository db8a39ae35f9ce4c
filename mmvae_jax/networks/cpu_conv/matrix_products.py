"""The three derivatives of the trilinear form as matrix products.

Let W[(i, j, c), f] be the kernel as a matrix, and let

    P[n, o, p, (i, j, c)] = x[n, s o + i - top, t p + j - left, c]

be the patches of the image. Then T = sum P W y, and

    dT/dy = P W          summed over (i, j, c),
    dT/dw = P' y         summed over n, o, p,
    dT/dP = y W'         summed over f; dT/dx adds up its entries pixel by pixel.
"""

import itertools
import math
from functools import reduce
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
Arrays = dict[str, Array]


class Window(NamedTuple):
    """Static geometry of a convolution: all of T except its three arrays.

    Attributes:
      kernel: height and width of the kernel.
      strides: strides along height and width.
      padding: zeros (low, high) along height and width; negative numbers crop.
      image: height and width of the image x.
    """

    kernel: Pair
    strides: Pair
    padding: Pads
    image: Pair

    @property
    def places(self) -> Pair:
        """Height and width of the output y: the places of the kernel on the padded image."""
        height, width = (
            (size + sum(pad) - k) // s + 1 for k, s, pad, size in zip(*self, strict=True)
        )
        return height, width


def _correlate(window: Window, x: Array, w: Array) -> Array:
    """Returns dT/dy = P W."""
    return _dot(_patches(window, x), w.reshape(-1, w.shape[3]), 1)


def _kernel_gradient(window: Window, x: Array, y: Array) -> Array:
    """Returns dT/dw = P' y."""
    over_places = ((0, 1, 2), (0, 1, 2))
    gradient = _dot(_patches(window, x), y, over_places)
    return gradient.reshape(*window.kernel, x.shape[3], y.shape[3])


def _spread(window: Window, y: Array, w: Array) -> Array:
    """Returns dT/dx: the products y W', each added to its pixel.

    Along the height, product (o, i) belongs to row s o + i - top of the image. Write i = s a + r
    with 0 <= r < s. The row is then s (o + a) + r - top, which is row r in cell o + a of a grid of
    cells with s rows. So block a of the kernel, its rows s a to s a + s - 1, is shifted by a whole
    cells and added up on the grid. Cells turn into pixels once, at the end. The same holds along
    the width.
    """
    (kh, kw, c, f), (sh, sw) = w.shape, window.strides
    if window.places == (1, 1):  # Nothing overlaps: the whole kernel is one block.
        sh, sw = kh, kw
    # 1. Cut the kernel into num_rows x num_columns blocks; the last ones may be smaller.
    num_rows, num_columns = -(-kh // sh), -(-kw // sw)
    corners = [(a, b) for a in range(num_rows) for b in range(num_columns)]
    parts = [w[a * sh : (a + 1) * sh, b * sw : (b + 1) * sw] for a, b in corners]
    # 2. Multiply y with all blocks at once: [n, o, p, f] x [f, (block, r, q, c)].
    kernel = jnp.concatenate([part.reshape(-1, f) for part in parts]).T
    ends = itertools.accumulate(part.size // f for part in parts[:-1])
    products = jnp.split(_dot(y, kernel, 1), list(ends), axis=-1)

    # 3. Shift block (a, b) by (a, b) cells; small blocks are filled up to whole cells.
    def shifted(corner: Pair, part: Array, product: Array) -> Array:
        (a, b), (height, width, _, _) = corner, part.shape
        block = product.reshape(*product.shape[:3], *part.shape[:3])
        rows, columns = (a, num_rows - 1 - a, 0), (b, num_columns - 1 - b, 0)
        inside = ((0, sh - height, 0), (0, sw - width, 0), (0, 0, 0))
        return lax.pad(block, jnp.zeros((), block.dtype), ((0, 0, 0), rows, columns, *inside))

    # 4. Add up the blocks on the grid, [n, rows, columns, r, q, c].
    cells = reduce(jnp.add, map(shifted, corners, parts, products))
    # 5. Turn cells into pixels, and drop the padding: pixel 0 of the image is row ``top`` here.
    n, rows, columns = cells.shape[:3]
    pixels = cells.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows * sh, columns * sw, c)
    (top, _), (left, _) = window.padding
    height, width = window.image
    return _pad(
        pixels,
        (-top, height + top - rows * sh),
        (-left, width + left - columns * sw),
    )


def _dot(a: Array, b: Array, axes: int | tuple[tuple[int, ...], tuple[int, ...]]) -> Array:
    """Contracts axes, accumulating in single precision at least."""
    at_least_single = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.tensordot(a, b, axes, preferred_element_type=at_least_single)


def _pad(x: Array, height: Pair, width: Pair) -> Array:
    """Adds (low, high) zeros along height and width; negative numbers crop."""
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*height, 0), (*width, 0), (0, 0, 0)))


def _patches(window: Window, x: Array) -> Array:
    """Returns P, the part of the image under the kernel at each place: ``[n, o, p, i * j * c]``."""
    (kh, kw), (sh, sw), (rows, columns) = window.kernel, window.strides, window.places
    vertical, (left, _) = window.padding
    width = (columns - 1) * sw + kw
    x = _pad(x, vertical, (left, width - left - x.shape[2]))
    # Neighbouring columns are copied as one where kernel and stride have a common divisor: every
    # place then covers all columns of such a group or none.
    group = math.gcd(kw, sw)
    x = x.reshape(*x.shape[:2], width // group, group * x.shape[3])
    kw, sw = kw // group, sw // group
    # Slice (i, j) holds what kernel entry (i, j) multiplies at every place.
    taps = [
        x[:, i : i + (rows - 1) * sh + 1 : sh, j : j + (columns - 1) * sw + 1 : sw]
        for i in range(kh)
        for j in range(kw)
    ]
    return jnp.concatenate(taps, axis=-1)


#: Derivative of T with respect to x, w and y.
MATRIX_PRODUCTS = {"x": _spread, "w": _kernel_gradient, "y": _correlate}
