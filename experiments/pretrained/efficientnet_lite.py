"""EfficientNet-Lite0 without its classifier, for inference.

Tan and Le (2019) describe EfficientNet-B0. The Lite variant (TensorFlow's TPU models, 2020) has no
squeeze-and-excite and ReLU6 in place of swish. Every batch normalisation is folded into the
convolution before it, so that the network is a pure function of its input.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import he_normal, lecun_normal
from jaxtyping import Array, Float

from mmvae_jax.networks import Conv

STEM_FEATURES = 32
NUM_FEATURES = 1280
#: Of the kernels before a ReLU6, which takes away half of the variance, and of the others.
_BEFORE_RELU, _LINEAR = he_normal(), lecun_normal()


class Stage(NamedTuple):
    """Blocks of one size.

    Attributes:
      num_blocks: number of blocks.
      kernel_size: height and width of the depthwise kernels.
      strides: strides of the first block; the others have 1.
      expansion: channels of the depthwise convolution, relative to those of the block's input.
      features: channels of the output.
    """

    num_blocks: int
    kernel_size: int
    strides: int
    expansion: int
    features: int


LITE0 = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class DepthwiseConv(nnx.Module):
    """A convolution of every channel with its own square kernel, padded as ``"SAME"``.

    The sum of shifted images takes a hundredth of the time of XLA's grouped convolution on CPU.

    Args:
      features: number of channels.
      kernel_size: height and width of the kernels.
      strides: distance between neighbouring outputs.
      rngs: source of the initial parameters.
    """

    def __init__(self, features: int, kernel_size: int, strides: int = 1, *, rngs: nnx.Rngs):
        draws = _BEFORE_RELU(rngs.params(), (kernel_size**2, features), jnp.float32)
        self.kernel = nnx.Param(draws.reshape(kernel_size, kernel_size, features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.strides = strides

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n o p c"]:
        """Returns the outputs of all channels, one pixel for each stride of the input."""
        kernel, s = self.kernel[...], self.strides
        k = len(kernel)
        rows, columns = (-(-size // s) for size in x.shape[1:3])
        pads = jax.lax.padtype_to_pads(x.shape[1:3], (k, k), (s, s), "SAME")
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        total = jnp.broadcast_to(self.bias[...], (len(x), rows, columns, x.shape[3]))
        for i, j in itertools.product(range(k), repeat=2):
            shifted = x[:, i : i + s * (rows - 1) + 1 : s, j : j + s * (columns - 1) + 1 : s]
            total += shifted * jnp.broadcast_to(kernel[i, j], shifted.shape)
        return total


class MBConv(nnx.Module):
    """An inverted bottleneck: wide layer, depthwise convolution, narrow layer without activation.

    The input is added to an output of the same shape.

    Args:
      in_features: channels of the input.
      stage: sizes of the block.
      strides: strides of the depthwise convolution.
      rngs: source of the initial parameters.
    """

    def __init__(self, in_features: int, stage: Stage, strides: int, *, rngs: nnx.Rngs):
        wide = in_features * stage.expansion
        self.expand = nnx.data(None)
        if stage.expansion > 1:
            self.expand = nnx.Linear(in_features, wide, kernel_init=_BEFORE_RELU, rngs=rngs)
        self.depthwise = DepthwiseConv(wide, stage.kernel_size, strides, rngs=rngs)
        self.project = nnx.Linear(wide, stage.features, kernel_init=_LINEAR, rngs=rngs)
        self.adds_input = strides == 1 and in_features == stage.features

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n o p f"]:
        """Returns the output of the block."""
        h = x if self.expand is None else jax.nn.relu6(self.expand(x))
        h = self.project(jax.nn.relu6(self.depthwise(h)))
        return x + h if self.adds_input else h


class EfficientNetLite(nnx.Module):
    """The convolutions of EfficientNet-Lite0, and the mean of its last features over all places.

    The parameters are drawn at random; ``weights.load`` returns a network with trained ones.

    Args:
      stages: sizes of the blocks.
      rngs: source of the initial parameters.
    """

    def __init__(self, stages: Sequence[Stage] = LITE0, *, rngs: nnx.Rngs):
        self.stem = Conv(3, STEM_FEATURES, (3, 3), strides=2, rngs=rngs)
        blocks, features = [], STEM_FEATURES
        for stage in stages:
            for i in range(stage.num_blocks):
                strides = stage.strides if i == 0 else 1
                blocks.append(MBConv(features, stage, strides, rngs=rngs))
                features = stage.features
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(features, NUM_FEATURES, kernel_init=_BEFORE_RELU, rngs=rngs)

    def __call__(self, x: Float[Array, "n h w 3"]) -> Float[Array, "n 1280"]:
        """Returns the features of pictures with intensities from 0 to 1."""
        h = (255 * x - 127) / 128  # as in training
        h = jax.nn.relu6(self.stem(h))
        for block in self.blocks:
            h = block(h)
        return jax.nn.relu6(self.head(h)).mean((1, 2))
