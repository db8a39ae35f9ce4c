"""The layers ``Conv`` and ``ConvTranspose``, as derivatives of the trilinear form."""

import math
from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Float

from mmvae_jax.networks.cpu_conv.matrix_products import Pads, Pair, Window
from mmvae_jax.networks.cpu_conv.trilinear import derivative, varying_alike

Padding = str | int | Sequence[int | Sequence[int]]

LECUN_NORMAL = nnx.initializers.lecun_normal()
ZEROS = nnx.initializers.zeros_init()


class _Convolution(nnx.Module):
    """Base of both layers: parameters, batch axes, types and bias."""

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
        rngs: nnx.Rngs,
    ):
        self.in_features = in_features
        self.out_features = out_features
        self.kernel_size = _checked_pair("kernel_size", kernel_size)
        strides = (strides, strides) if isinstance(strides, int) else strides
        self.strides = _checked_pair("strides", strides)
        self.padding = _checked_padding(padding)
        self.dtype = dtype
        shape = (*self.kernel_size, in_features, out_features)
        # Drawn as a matrix, with the same values: XLA takes twice as long to compile four axes.
        matrix = (math.prod(shape[:-1]), out_features)
        self.kernel = nnx.Param(LECUN_NORMAL(rngs.params(), matrix, jnp.float32).reshape(shape))
        # As in Flax, the zeros of a bias use up a key, so that both draw the same parameters.
        bias = nnx.Param(ZEROS(rngs.params(), shape[-1:], jnp.float32)) if use_bias else None
        self.bias = nnx.data(bias)

    def __call__(self, inputs: Float[Array, "*n h w c"]) -> Float[Array, "*n o p f"]:
        if inputs.ndim < 3 or inputs.shape[-1] != self.in_features:
            raise ValueError(
                f"inputs.shape is {inputs.shape}: give images (..., height, width, "
                f"in_features={self.in_features}), channels last"
            )
        bias = None if self.bias is None else self.bias[...]
        inputs, kernel, bias = promote_dtype((inputs, self.kernel[...], bias), dtype=self.dtype)
        *batch, height, width, channels = inputs.shape
        images = inputs.reshape(math.prod(batch), height, width, channels)
        outputs = self._convolve(*varying_alike(images, kernel))
        if bias is not None:
            # The gradient of a bias is a sum over all pixels: added in single precision at least.
            single = jnp.promote_types(outputs.dtype, jnp.float32)
            shifted = outputs.astype(single) + bias.astype(single).reshape(1, 1, 1, -1)
            outputs = shifted.astype(outputs.dtype)
        return outputs.reshape(*batch, *outputs.shape[1:])

    def _convolve(self, images: Array, kernel: Array) -> Array:
        """Returns the layer's output without its bias, ``[n, h, w, c] -> [n, o, p, f]``."""
        raise NotImplementedError


class Conv(_Convolution):
    """A 2D convolution with the parameters and values of ``nnx.Conv``.

    Args:
      in_features: channels of the input.
      out_features: channels of the output.
      kernel_size: height and width of the kernel.
      strides: distance between neighbouring outputs, for both axes or for each.
      padding: ``"SAME"`` (one output per stride), ``"VALID"`` (no padding), or numbers of zeros
        around the input: one number, or for each axis a number or a pair (before, after).
      use_bias: True to add a bias to every output channel.
      dtype: type of the computation; by default the common type of input and parameters.
      rngs: source of the initial parameters.

    Raises:
      ValueError: for sizes, strides or paddings of another form; on a call, for another number of
        channels, or images smaller than the kernel.

    >>> from mmvae_jax.networks import Conv
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
                f"inputs.shape is {images.shape}: use images of more than {height} x {width} "
                f"pixels, more padding than {self.padding!r}, or a kernel smaller than "
                f"{self.kernel_size}"
            )
        return derivative("y", window, {"x": images, "w": kernel})


class ConvTranspose(_Convolution):
    """A transposed 2D convolution with the parameters and values of ``nnx.ConvTranspose``.

    Arguments and errors are those of ``Conv``, except for ``padding``. ``"SAME"`` gives ``stride``
    outputs per input, and ``"VALID"`` every output that an input reaches. Numbers are zeros around
    the input, after ``stride - 1`` zeros have been put between its pixels.

    >>> from mmvae_jax.networks import ConvTranspose
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
                f"padding is {self.padding!r}: use more, or larger images, because outputs would "
                f"be {height} x {width} pixels with kernel_size={self.kernel_size}"
            )
        # The output takes the place of x in the trilinear form, and the input that of y. Flax
        # slides the kernel over the input, which mirrors the kernel as the output sees it.
        window = Window(self.kernel_size, self.strides, crops, (height, width))
        return derivative("x", window, {"y": images, "w": kernel[::-1, ::-1].swapaxes(2, 3)})

    def _crop(self, axis: int) -> Pair:
        """Returns the numbers of reachable pixels to drop at both ends of an axis."""
        k, s = self.kernel_size[axis], self.strides[axis]
        if isinstance(self.padding, tuple):
            low, high = self.padding[axis]
            return (k - 1 - low, k - 1 - high)
        if self.padding == "VALID":
            return (0, min(k - s, 0))
        low = max(k - s, 0) // 2
        return (low, k - s - low)


def _checked_pair(field: str, value: Sequence[int]) -> Pair:
    """Returns two positive integers."""
    match value:
        case (int(height), int(width)) if min(height, width) >= 1:
            return (height, width)
    raise ValueError(f"{field} is {value!r}: give two positive integers, (height, width)")


def _checked_padding(padding: Padding) -> Literal["SAME", "VALID"] | Pads:
    """Returns a named padding, or ((top, bottom), (left, right))."""
    match padding:
        case "SAME" | "VALID":
            return padding
        case int():
            return ((padding, padding), (padding, padding))
        case (int() | (int(), int()) as height, int() | (int(), int()) as width):
            return (_both_ends(height), _both_ends(width))
    raise ValueError(
        f"padding is {padding!r}: give 'SAME', 'VALID', an integer, or for height and width each "
        "an integer or a pair (before, after)"
    )


def _both_ends(value: int | Sequence[int]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
