"""MultiVae's residual networks for PolyMNIST, which apply activations after convolutions."""

from functools import partial

from flax import nnx
from jaxtyping import Array, Float

from mmvae_jax.networks.resnet import (
    PolyMNISTResNetDecoder,
    PolyMNISTResNetEncoder,
    ResidualBlock,
    activation,
)


class LateActivationBlock(ResidualBlock):
    """A residual block that computes ``shortcut(x) + 0.1 a(conv(a(conv(x))))``.

    The blocks of Palumbo et al. (2023), and of ``ResidualBlock``, have the activations ``a`` before
    the convolutions.
    """

    def residual(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w f"]:
        """Returns the output of the two convolutions."""
        return activation(self.outer(activation(self.inner(x))))


#: One of the two networks of MultiVae's ``EncoderResnetMMNIST``.
LateActivationEncoder = partial(PolyMNISTResNetEncoder, block=LateActivationBlock)


class LateActivationDecoder(PolyMNISTResNetDecoder):
    """MultiVae's ``DecoderResnetMMNIST``, whose last layer has an activation too.

    Args:
      latent_dim: size of the latent.
      rngs: source of the initial parameters.
    """

    def __init__(self, latent_dim: int, *, rngs: nnx.Rngs):
        super().__init__(latent_dim, block=LateActivationBlock, rngs=rngs)

    def to_image(self, h: Float[Array, "n 28 28 c"]) -> Float[Array, "n 28 28 3"]:
        """Returns the image of the last feature map."""
        return activation(self.image(h))
