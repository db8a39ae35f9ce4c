"""Two-dimensional convolutions: matrix products on CPU, native elsewhere.

`Conv` and `ConvTranspose` hold the parameters of ``nnx.Conv`` and ``nnx.ConvTranspose`` and compute
the same values. Both rest on one trilinear form in an image x, a kernel w and an output y,

    T(x, w, y) = sum x[n, s o + i - low, s p + j - low, c] w[i, j, c, f] y[n, o, p, f],

summed over every index. dT/dy is a convolution of x, dT/dx a transposed convolution of y, dT/dw the
gradient of a kernel. The gradients of each are the other two, so reverse-mode differentiation of
any order stays within the three. Forward mode (``jax.jvp``, ``jax.jacfwd``) is not supported.
"""

import math
from collections.abc import Sequence
from functools import partial, reduce
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype, Initializer
from jax import lax
from jaxtyping import Array, Float

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
Padding = str | int | Sequence[int | Sequence[int]]
Arrays = dict[str, Array]

LECUN_NORMAL = nnx.initializers.lecun_normal()
ZEROS = nnx.initializers.zeros_init()

# How much of the batch's patches is held at a time: about a core's share of cache. All of them at
# once pass through main memory, which takes several times as long as the arithmetic.
CHUNK_BYTES = 2 * 2**20


class _Convolution(nnx.Module):
    """The parameters and the calling convention that `Conv` and `ConvTranspose` share."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Sequence[int],
        strides: int | Sequence[int] = 1,
        *,
        padding: Padding = "SAME",
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        kernel_init: Initializer = LECUN_NORMAL,
        bias_init: Initializer = ZEROS,
        rngs: nnx.Rngs,
    ):
        self.in_features = in_features
        self.out_features = out_features
        self.kernel_size = _sizes("kernel_size", kernel_size)
        self.strides = _sizes("strides", (strides,) * 2 if isinstance(strides, int) else strides)
        self.padding = _checked_padding(padding)
        self.dtype = dtype
        shape = (*self.kernel_size, in_features, out_features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, param_dtype))
        bias = nnx.Param(bias_init(rngs.params(), shape[-1:], param_dtype)) if use_bias else None
        self.bias = nnx.data(bias)

    def __call__(self, inputs: Float[Array, "*n h w c"]) -> Float[Array, "*n o p f"]:
        if inputs.ndim < 3 or inputs.shape[-1] != self.in_features:
            raise ValueError(
                f"inputs has shape {inputs.shape}, expected (..., height, width, "
                f"in_features={self.in_features}): images are channels-last"
            )
        bias = None if self.bias is None else self.bias[...]
        inputs, kernel, bias = promote_dtype((inputs, self.kernel[...], bias), dtype=self.dtype)
        *batch, height, width, channels = inputs.shape
        images = inputs.reshape(math.prod(batch), height, width, channels)
        outputs = self._convolve(*_varying_alike(images, kernel))
        if bias is not None:
            outputs += bias.reshape(1, 1, 1, -1)
        return outputs.reshape(*batch, *outputs.shape[1:])

    def _convolve(self, images: Array, kernel: Array) -> Array:
        raise NotImplementedError


class Conv(_Convolution):
    """``nnx.Conv`` for images: same parameters, same values, matrix products on CPU.

    Args:
      in_features: channels of the input.
      out_features: channels of the output.
      kernel_size: height and width of the kernel.
      strides: distance between neighbouring outputs, along both axes or along each.
      padding: ``"SAME"`` (an output per stride), ``"VALID"`` (none), or zeros around the input:
        one number, or for each axis a number or a pair (before, after).
      use_bias: whether to add a bias to every output channel.
      dtype: type to compute in; by default that of input and parameters together.
      param_dtype: type of the parameters.
      kernel_init: initialiser of the kernel ``[*kernel_size, in_features, out_features]``.
      bias_init: initialiser of the bias ``[out_features]``.
      rngs: source of the initial parameters.

    Raises:
      ValueError: for sizes, strides or paddings not of this form, and for inputs that have other
        channels or are smaller than the kernel.

    >>> layer = Conv(3, 8, (4, 4), strides=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((5, 32, 32, 3))).shape
    (5, 16, 16, 8)
    """

    def _convolve(self, images: Array, kernel: Array) -> Array:
        _, height, width, _ = images.shape
        pads = self.padding
        if isinstance(pads, str):
            size = (height, width)
            vertical, horizontal = lax.padtype_to_pads(size, self.kernel_size, self.strides, pads)
            pads = (vertical, horizontal)
        window = Window(self.kernel_size, self.strides, pads, (height, width))
        if min(window.places) < 1:
            raise ValueError(
                f"inputs are {height} x {width} pixels, too few for kernel_size="
                f"{self.kernel_size} with padding={self.padding!r}: use larger images or padding, "
                "or a smaller kernel"
            )
        return derivative("y", window, {"x": images, "w": kernel})


class ConvTranspose(_Convolution):
    """``nnx.ConvTranspose`` for images: same parameters, same values, matrix products on CPU.

    Arguments and errors are those of `Conv`, but for ``padding``: ``"SAME"`` gives ``stride``
    outputs per input, ``"VALID"`` every output that an input reaches, and numbers are zeros around
    the input, which the kernel slides over once ``stride - 1`` zeros separate its pixels.

    >>> layer = ConvTranspose(8, 3, (4, 4), strides=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((5, 16, 16, 8))).shape
    (5, 32, 32, 3)
    """

    def _convolve(self, images: Array, kernel: Array) -> Array:
        crops = (self._crop(0), self._crop(1))
        height, width = (
            (size - 1) * s + k - sum(crop)
            for size, s, k, crop in zip(
                images.shape[1:3], self.strides, self.kernel_size, crops, strict=True
            )
        )
        if min(height, width) < 1:
            raise ValueError(
                f"outputs would be {height} x {width} pixels with kernel_size={self.kernel_size} "
                f"and padding={self.padding!r}: use larger images or padding"
            )
        window = Window(self.kernel_size, self.strides, crops, (height, width))
        return derivative("x", window, {"y": images, "w": kernel[::-1, ::-1].swapaxes(2, 3)})

    def _crop(self, axis: int) -> Pair:
        """What to leave out at both ends of all the pixels that the input reaches."""
        k, s = self.kernel_size[axis], self.strides[axis]
        if isinstance(self.padding, tuple):
            low, high = self.padding[axis]
            return (k - 1 - low, k - 1 - high)
        if self.padding == "VALID":
            return (0, min(k - s, 0))
        low = max(k - s, 0) // 2
        return (low, k - s - low)


def _sizes(name: str, value: Sequence[int]) -> Pair:
    match value:
        case (int(height), int(width)) if min(height, width) >= 1:
            return (height, width)
    raise ValueError(f"{name} is {value!r}, expected two positive integers, (height, width)")


def _checked_padding(padding: Padding) -> Literal["SAME", "VALID"] | Pads:
    match padding:
        case "SAME" | "VALID":
            return padding
        case int():
            return ((padding, padding), (padding, padding))
        case (int() | (int(), int()) as height, int() | (int(), int()) as width):
            return (_pair(height), _pair(width))
    raise ValueError(
        f"padding is {padding!r}, expected 'SAME', 'VALID', an integer, or for height and width "
        "each an integer or a pair (before, after)"
    )


def _pair(value: int | Sequence[int]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


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


derivative.defvjp(lambda *args: (derivative(*args), args[-1]), _gradients)


def _varying_alike(x: Array, w: Array) -> tuple[Array, Array]:
    """Give both arrays the type of their sum.

    In ``jax.shard_map`` images vary over devices and kernels do not, so a kernel's gradient is a
    sum over devices. JAX inserts that sum where it differentiates this addition of nothing, which
    XLA drops; `_gradients` would have to know the names of the mesh's axes.
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
    gradient = _dot(_patches(window, x), y, ((0, 1, 2), (0, 1, 2)))
    return gradient.reshape(*window.kernel, x.shape[3], y.shape[3])


def _spread(window: Window, y: Array, w: Array) -> Array:
    """dT/dx: output times kernel, every product added to the pixels it belongs to.

    The kernel is cut into blocks of one stride by one stride. Neighbouring places are a block
    apart, so whole blocks add up on the grid of places, and turn into pixels at the very end.
    """
    (kh, kw, c, f), (sh, sw) = w.shape, window.strides
    bh, bw = -(-kh // sh), -(-kw // sw)
    w = jnp.pad(w, ((0, bh * sh - kh), (0, bw * sw - kw), (0, 0), (0, 0)))
    w = w.reshape(bh, sh, bw, sw, c, f).transpose(5, 0, 2, 1, 3, 4).reshape(f, -1)
    shifts = [(i, j) for i in range(bh) for j in range(bw)]
    products = jnp.split(_dot(y, w, 1), len(shifts), axis=-1)
    blocks = reduce(
        jnp.add,
        (
            _pad(product, (i, bh - 1 - i), (j, bw - 1 - j))
            for product, (i, j) in zip(products, shifts, strict=True)
        ),
    )
    n, rows, columns, _ = blocks.shape
    pixels = blocks.reshape(n, rows, columns, sh, sw, c).transpose(0, 1, 3, 2, 4, 5)
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
    x = jnp.pad(x, ((0, -len(x) % num_chunks), *((0, 0),) * (x.ndim - 1)))
    return x.reshape(len(x) // num_chunks, num_chunks, *x.shape[1:])


def _num_chunks(window: Window, known: Arrays) -> int:
    """How many chunks bring patches below `CHUNK_BYTES`; a divisor of n if one is near."""
    images = known["x" if "x" in known else "y"]
    channels = known["x"].shape[3] if "x" in known else known["w"].shape[2]
    num_values = len(images) * math.prod(window.places) * math.prod(window.kernel) * channels
    num_bytes = num_values * images.dtype.itemsize
    wanted = max(1, min(len(images), -(-num_bytes // CHUNK_BYTES)))
    divisors = (num for num in range(wanted, 2 * wanted) if len(images) % num == 0)
    return next(divisors, wanted)
