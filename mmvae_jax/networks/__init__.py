"""Encoders and decoders, each an NNX module.

An encoder maps ``x [n, *input_dim]`` to location and raw scale of the posterior,
``(loc [n, d], log_var [n, d])``; a decoder maps ``z [n, d]`` to the parameters of the likelihood,
``[n, *input_dim]``. Images are channels-last. Any callable module of this form serves, Flax layers
with state (BatchNorm) excepted.

- Any data: ``MLPEncoder``, ``MLPDecoder`` (the default of ``mm.MMVAE``)
- Images of any size: ``ConvEncoder``, ``ConvDecoder``
- SVHN, ``[32, 32, 3]``: ``SVHNEncoder``, ``SVHNDecoder``
- PolyMNIST, ``[28, 28, 3]``: ``PolyMNISTEncoder``, ``PolyMNISTDecoder``, and the residual
  ``PolyMNISTResNetEncoder``, ``PolyMNISTResNetDecoder``
- MNIST-SVHN-Text, ``[8, 71]``: ``TextEncoder``, ``TextDecoder``
- CUB, ``[64, 64, 3]`` and ``[32, 1590]``: ``CUBImageEncoder``, ``CUBImageDecoder``,
  ``CUBCaptionEncoder``, ``CUBCaptionDecoder``
- A shared and a private latent: ``TwoLatentEncoder``
- Layers for custom networks: ``Conv``, ``ConvTranspose``, ``ResidualBlock``
"""

from mmvae_jax.networks.cpu_conv import Conv, ConvTranspose
from mmvae_jax.networks.cub import (
    CUBCaptionDecoder,
    CUBCaptionEncoder,
    CUBImageDecoder,
    CUBImageEncoder,
)
from mmvae_jax.networks.images import ConvDecoder, ConvEncoder
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.networks.polymnist import PolyMNISTDecoder, PolyMNISTEncoder
from mmvae_jax.networks.resnet import (
    PolyMNISTResNetDecoder,
    PolyMNISTResNetEncoder,
    ResidualBlock,
)
from mmvae_jax.networks.svhn import SVHNDecoder, SVHNEncoder
from mmvae_jax.networks.text import TextDecoder, TextEncoder
from mmvae_jax.networks.two_latents import TwoLatentEncoder

__all__ = [
    "CUBCaptionDecoder",
    "CUBCaptionEncoder",
    "CUBImageDecoder",
    "CUBImageEncoder",
    "Conv",
    "ConvDecoder",
    "ConvEncoder",
    "ConvTranspose",
    "MLPDecoder",
    "MLPEncoder",
    "PolyMNISTDecoder",
    "PolyMNISTEncoder",
    "PolyMNISTResNetDecoder",
    "PolyMNISTResNetEncoder",
    "ResidualBlock",
    "SVHNDecoder",
    "SVHNEncoder",
    "TextDecoder",
    "TextEncoder",
    "TwoLatentEncoder",
]
