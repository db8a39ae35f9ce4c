"""Two-dimensional convolutions: matrix products on CPU, native elsewhere.

``Conv`` and ``ConvTranspose`` hold the parameters of ``nnx.Conv`` and ``nnx.ConvTranspose`` and
compute the same values. Reverse-mode differentiation works to any order; forward mode (``jax.jvp``,
``jax.jacfwd``) is not supported.
"""

import math
from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype, Initializer
from jax import lax
from jaxtyping import Array, Float

from mmvae_jax.networks.trilinear import Pads, Pair, Window, derivative, varying_alike

Padding = str | int | Sequence[int | Sequence[int]]

LECUN_NORMAL = nnx.initializers.lecun_normal()
ZEROS = nnx.initializers.zeros_init()


class _Convolution(nnx.Module):
    """The parameters and the calling convention that ``Conv`` and ``ConvTranspose`` share."""

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
        outputs = self._convolve(*varying_alike(images, kernel))
        if bias is not None:
            # In single precision at least, for the sum over all pixels that its gradient is.
            single = jnp.promote_types(outputs.dtype, jnp.float32)
            shifted = outputs.astype(single) + bias.astype(single).reshape(1, 1, 1, -1)
            outputs = shifted.astype(outputs.dtype)
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

    Arguments and errors are those of ``Conv``, but for ``padding``: ``"SAME"`` gives ``stride``
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
