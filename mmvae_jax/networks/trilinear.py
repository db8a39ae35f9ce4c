"""The trilinear form behind convolutions, and its derivatives.

In an image x, a kernel w and an output y,

    T(x, w, y) = sum x[n, s o + i - low, s p + j - low, c] w[i, j, c, f] y[n, o, p, f],

summed over every index. dT/dy is a convolution of x, dT/dx a transposed convolution of y, dT/dw the
gradient of a kernel. The gradients of each are the other two, so reverse-mode differentiation of
any order stays within the three.
"""

import itertools
import math
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
Arrays = dict[str, Array]

# How much of the batch's patches is held at a time: about a core's share of cache. All of them at
# once pass through main memory, which takes several times as long as the arithmetic.
CHUNK_BYTES = 8 * 2**20


class Window(NamedTuple):
    """How a kernel slides over an image: all there is to T but its three arrays."""

    kernel: Pair
    strides: Pair
    padding: Pads  # zeros (low, high) along height and width; negative numbers crop
    image: Pair

    @property
    def places(self) -> Pair:
        """How many places the kernel takes along height and width."""
        height, width = (
            (size + sum(pad) - k) // s + 1 for k, s, pad, size in zip(*self, strict=True)
        )
        return height, width


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
@partial(jax.jit, static_argnums=(0, 1))
def derivative(name: str, window: Window, known: Arrays) -> Array:
    """T's derivative with respect to one of x, w and y, given the other two."""
    return lax.platform_dependent(
        known, cpu=partial(_in_chunks, name, window), default=partial(_native, name, window)
    )


def _gradients(name: str, window: Window, known: Arrays, cotangent: Array) -> tuple[Arrays]:
    arrays = known | {name: cotangent}

    def gradient(name):
        return derivative(name, window, {n: x for n, x in arrays.items() if n != name})

    return ({name: gradient(name) for name in known},)


def _forward(name: str, window: Window, known: Arrays) -> tuple[Array, Arrays]:
    # Behind a barrier: what follows needs the result twice, and XLA would compute it twice.
    return lax.optimization_barrier(derivative(name, window, known)), known


derivative.defvjp(_forward, _gradients)


def varying_alike(x: Array, w: Array) -> tuple[Array, Array]:
    """Give both arrays the type of their sum.

    In ``jax.shard_map`` images vary over devices and kernels do not, so a kernel's gradient is a
    sum over devices. JAX inserts that sum where it differentiates this addition of nothing, which
    XLA drops; ``_gradients`` would have to know the names of the mesh's axes.
    """
    nothing = jnp.zeros_like(x, shape=(1,) * 4) + jnp.zeros_like(w, shape=(1,) * 4)
    return x + nothing, w + nothing


def _native(name: str, window: Window, known: Arrays) -> Array:
    """XLA's own convolution, dT/dy, and its transposes."""
    if name == "y":
        x, w = known["x"], known["w"]
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, w, window.strides, window.padding, dimension_numbers=layout
        )
    y = known["y"]
    if name == "x":
        shape = (y.shape[0], *window.image, known["w"].shape[2])
    else:
        shape = (*window.kernel, known["x"].shape[3], y.shape[3])
    transpose = jax.linear_transpose(
        lambda unknown: _native("y", window, known | {name: unknown}),
        jnp.zeros_like(y, shape=shape),
    )
    return transpose(y)[0]


def _correlate(window: Window, x: Array, w: Array) -> Array:
    """dT/dy: patches times kernel."""
    return _dot(_patches(window, x), w.reshape(-1, w.shape[3]), 1)


def _kernel_gradient(window: Window, x: Array, y: Array) -> Array:
    """dT/dw: patches, transposed, times output."""
    everywhere = ((0, 1, 2), (0, 1, 2))
    gradient = _dot(_patches(window, x), y, everywhere)
    return gradient.reshape(*window.kernel, x.shape[3], y.shape[3])


def _spread(window: Window, y: Array, w: Array) -> Array:
    """dT/dx: output times kernel, every product added to the pixels it belongs to.

    The kernel is cut into blocks of one stride by one stride, smaller ones at its end. Neighbouring
    places are a block apart, so whole blocks add up on the grid of places, and turn into pixels at
    the very end.
    """
    (kh, kw, c, f), (sh, sw) = w.shape, window.strides
    if window.places == (1, 1):  # nothing overlaps
        sh, sw = kh, kw
    bh, bw = -(-kh // sh), -(-kw // sw)
    corners = [(i, j) for i in range(bh) for j in range(bw)]
    parts = [w[i * sh : (i + 1) * sh, j * sw : (j + 1) * sw] for i, j in corners]
    kernel = jnp.concatenate([part.reshape(-1, f) for part in parts]).T
    ends = itertools.accumulate(part.size // f for part in parts[:-1])
    products = jnp.split(_dot(y, kernel, 1), list(ends), axis=-1)

    def placed(corner: Pair, part: Array, product: Array) -> Array:
        """The part's products ``[n, rows, columns, sh, sw, c]`` on the grid of places."""
        (i, j), (height, width, _, _) = corner, part.shape
        block = product.reshape(*product.shape[:3], *part.shape[:3])
        rows, columns = (i, bh - 1 - i, 0), (j, bw - 1 - j, 0)
        inside = ((0, sh - height, 0), (0, sw - width, 0), (0, 0, 0))
        return lax.pad(block, jnp.zeros((), block.dtype), ((0, 0, 0), rows, columns, *inside))

    blocks = reduce(jnp.add, map(placed, corners, parts, products))
    n, rows, columns = blocks.shape[:3]
    pixels = blocks.transpose(0, 1, 3, 2, 4, 5)
    (top, _), (left, _) = window.padding
    height, width = window.image
    return _pad(
        pixels.reshape(n, rows * sh, columns * sw, c),
        (-top, height + top - rows * sh),
        (-left, width + left - columns * sw),
    )


MATRIX_PRODUCTS = {"x": _spread, "w": _kernel_gradient, "y": _correlate}


def _dot(a: Array, b: Array, axes: int | tuple[tuple[int, ...], tuple[int, ...]]) -> Array:
    """Contract the axes, adding up in single precision at least."""
    at_least_single = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.tensordot(a, b, axes, preferred_element_type=at_least_single)


def _pad(x: Array, height: Pair, width: Pair) -> Array:
    """Add (low, high) zeros along height and width; negative numbers crop."""
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*height, 0), (*width, 0), (0, 0, 0)))


def _patches(window: Window, x: Array) -> Array:
    """What the kernel sees at each place: ``[n, h, w, c] -> [n, o, p, i * j * c]``."""
    (kh, kw), (sh, sw), (rows, columns) = window.kernel, window.strides, window.places
    vertical, (left, _) = window.padding
    width = (columns - 1) * sw + kw
    x = _pad(x, vertical, (left, width - left - x.shape[2]))
    # Columns that every place sees together or not at all are copied together.
    group = math.gcd(kw, sw)
    x = x.reshape(*x.shape[:2], width // group, group * x.shape[3])
    kw, sw = kw // group, sw // group
    taps = [
        x[:, i : i + (rows - 1) * sh + 1 : sh, j : j + (columns - 1) * sw + 1 : sw]
        for i in range(kh)
        for j in range(kw)
    ]
    return jnp.concatenate(taps, axis=-1)


def _in_chunks(name: str, window: Window, known: Arrays) -> Array:
    """A derivative by matrix products over chunks of the batch, stacked, or added up for dT/dw.

    Chunk i holds every num_chunks-th example from the i-th on, and so an equal part of each
    device's examples when the batch is sharded.
    """
    images = known["x" if "x" in known else "y"]
    dtype, num_chunks = images.dtype, _num_chunks(window, known)
    chunks = {n: _split(array, num_chunks) for n, array in known.items() if n != "w"}

    def product(i: Array | int) -> Array:
        chunk = {n: lax.dynamic_index_in_dim(x, i, 1, keepdims=False) for n, x in chunks.items()}
        return MATRIX_PRODUCTS[name](window, **(known | chunk))

    like = product(0)  # the result of a single chunk; of several, what each one's is like
    if num_chunks == 1:
        return like.astype(dtype)
    if name == "w":
        step, total = lambda i, total: total + product(i), jnp.zeros_like(like)
        return lax.fori_loop(0, num_chunks, step, total).astype(dtype)
    stack = jnp.zeros_like(like, dtype, shape=(len(like), num_chunks, *like.shape[1:]))

    def place(i: Array, stack: Array) -> Array:
        return lax.dynamic_update_index_in_dim(stack, product(i).astype(dtype), i, 1)

    stack = lax.fori_loop(0, num_chunks, place, stack)
    return stack.reshape(len(like) * num_chunks, *like.shape[1:])[: len(images)]


def _split(x: Array, num_chunks: int) -> Array:
    """``[n, ...] -> [n / num_chunks, num_chunks, ...]``, zeros added if n is no multiple."""
    x = jnp.pad(x, ((0, -x.shape[0] % num_chunks), *((0, 0),) * (x.ndim - 1)))
    return x.reshape(x.shape[0] // num_chunks, num_chunks, *x.shape[1:])


def _num_chunks(window: Window, known: Arrays) -> int:
    """How many chunks bring patches below ``CHUNK_BYTES``; a divisor of n if one is near."""
    images = known["x" if "x" in known else "y"]
    if jax.export.is_symbolic_dim(images.shape[0]):
        return 1  # a program for batches of any size has no number of them to divide
    channels = known["x"].shape[3] if "x" in known else known["w"].shape[2]
    num_values = len(images) * math.prod(window.places) * math.prod(window.kernel) * channels
    num_bytes = num_values * images.dtype.itemsize
    wanted = max(1, min(len(images), -(-num_bytes // CHUNK_BYTES)))
    divisors = (num for num in range(wanted, 2 * wanted) if len(images) % num == 0)
    return next(divisors, wanted)
