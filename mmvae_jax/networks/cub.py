"""Convolutional networks for CUB images and captions (Shi et al. 2019, arXiv 1911.03393)."""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype
from jaxtyping import Array, Float

from mmvae_jax.networks.cpu_conv import Conv, ConvTranspose
from mmvae_jax.networks.mlp import EncoderOutput
from mmvae_jax.networks.strided import StridedDecoder, StridedEncoder

NUM_WORDS = 1590
EMBEDDING_DIM = 128
KERNEL = (4, 4)
# Kernels and strides for a caption, an image of 32 words x 128 embedding axes: three layers halve
# both sides, two halve the embedding only.
WINDOWS = ((KERNEL, (2, 2)),) * 3 + (((1, 4), (1, 2)),) * 2


class CUBImageEncoder(StridedEncoder):
    """Four strided convolutions, and one convolution each for loc and log_var.

    Layers and shapes::

        Conv(3, 64, 4 x 4, stride 2), ReLU      64 x 64 x 3   -> 32 x 32 x 64
        Conv(64, 128, 4 x 4, stride 2), ReLU    32 x 32 x 64  -> 16 x 16 x 128
        Conv(128, 256, 4 x 4, stride 2), ReLU   16 x 16 x 128 -> 8 x 8 x 256
        Conv(256, 512, 4 x 4, stride 2), ReLU   8 x 8 x 256   -> 4 x 4 x 512
        Conv(512, d, 4 x 4) for loc, Conv(512, d, 4 x 4) for log_var

    Args:
      latent_dim: size d of the latent.
      width: channels of the first convolution; each following one doubles them.
      dtype: type of the computation; by default that of the images and parameters.
      rngs: source of the initial parameters.

    >>> encoder = mm.networks.CUBImageEncoder(20, width=8, rngs=nnx.Rngs(0))
    >>> loc, log_var = encoder(jnp.zeros((5, 64, 64, 3)))
    >>> loc.shape
    (5, 20)
    """

    def __init__(
        self, latent_dim: int, *, width: int = 64, dtype: Dtype | None = None, rngs: nnx.Rngs
    ):
        features = (width, 2 * width, 4 * width, 8 * width)
        super().__init__(latent_dim, KERNEL, features, dtype=dtype, rngs=rngs)


class CUBImageDecoder(StridedDecoder):
    """Mirror image of ``CUBImageEncoder``; outputs are intensities in (0, 1).

    Layers and shapes::

        ConvTranspose(d, 512, 4 x 4), ReLU                1 x 1 x d     -> 4 x 4 x 512
        ConvTranspose(512, 256, 4 x 4, stride 2), ReLU    4 x 4 x 512   -> 8 x 8 x 256
        ConvTranspose(256, 128, 4 x 4, stride 2), ReLU    8 x 8 x 256   -> 16 x 16 x 128
        ConvTranspose(128, 64, 4 x 4, stride 2), ReLU     16 x 16 x 128 -> 32 x 32 x 64
        ConvTranspose(64, 3, 4 x 4, stride 2), sigmoid    32 x 32 x 64  -> 64 x 64 x 3

    Args:
      latent_dim: size d of the latent.
      width: channels before the last convolution; each preceding one has twice as many.
      dtype: type of the computation; by default that of z and the parameters.
      rngs: source of the initial parameters.

    >>> decoder = mm.networks.CUBImageDecoder(20, width=8, rngs=nnx.Rngs(0))
    >>> decoder(jnp.zeros((5, 20))).shape
    (5, 64, 64, 3)
    """

    def __init__(
        self, latent_dim: int, *, width: int = 64, dtype: Dtype | None = None, rngs: nnx.Rngs
    ):
        features = (8 * width, 4 * width, 2 * width, width)
        super().__init__(latent_dim, KERNEL, features, dtype=dtype, rngs=rngs)


class CUBCaptionEncoder(nnx.Module):
    """Convolutions over 32 embedded words, and one convolution each for loc and log_var.

    Layers and shapes::

        x @ embedding                                   32 x 1590     -> 32 x 128 x 1
        Conv(1, 32, 4 x 4, stride 2), ReLU              32 x 128 x 1  -> 16 x 64 x 32
        Conv(32, 64, 4 x 4, stride 2), ReLU             16 x 64 x 32  -> 8 x 32 x 64
        Conv(64, 128, 4 x 4, stride 2), ReLU            8 x 32 x 64   -> 4 x 16 x 128
        Conv(128, 128, 1 x 4, stride 1 x 2), ReLU       4 x 16 x 128  -> 4 x 8 x 128
        Conv(128, 128, 1 x 4, stride 1 x 2), ReLU       4 x 8 x 128   -> 4 x 4 x 128
        Conv(128, d, 4 x 4) for loc, Conv(128, d, 4 x 4) for log_var

    Differs from the code of Shi et al. in two ways. Biases replace BatchNorm, which carries state
    from call to call. Padding is a word like any other; in their code its vector starts at zero and
    only the decoder trains it.

    Args:
      latent_dim: size d of the latent.
      num_words: size of the vocabulary.
      width: channels of the first convolution; the others have two and four times as many.
      dtype: type of the computation; by default that of the captions and parameters.
      rngs: source of the initial parameters.

    Attributes:
      embedding: vector of every word, ``[num_words, 128]``; an argument of ``CUBCaptionDecoder``.

    >>> encoder = mm.networks.CUBCaptionEncoder(20, num_words=50, width=8, rngs=nnx.Rngs(0))
    >>> loc, log_var = encoder(jnp.zeros((5, 32, 50)))
    >>> loc.shape
    (5, 20)
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        num_words: int = NUM_WORDS,
        width: int = 32,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        features = (1, width, 2 * width, 4 * width, 4 * width, 4 * width)
        self.dtype = dtype
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (num_words, EMBEDDING_DIM)))
        self.convs = nnx.List(
            Conv(a, b, kernel, strides, dtype=dtype, rngs=rngs)
            for (a, b), (kernel, strides) in zip(itertools.pairwise(features), WINDOWS, strict=True)
        )
        self.loc, self.log_var = (
            Conv(features[-1], latent_dim, KERNEL, padding="VALID", dtype=dtype, rngs=rngs)
            for _ in range(2)
        )

    def __call__(self, x: Float[Array, "n 32 v"]) -> EncoderOutput:
        x, embedding = promote_dtype((x, self.embedding[...]), dtype=self.dtype)
        h = jnp.matmul(x, embedding)[..., None]
        for conv in self.convs:
            h = jax.nn.relu(conv(h))
        return self.loc(h)[:, 0, 0], self.log_var(h)[:, 0, 0]


class CUBCaptionDecoder(nnx.Module):
    """Mirror image of ``CUBCaptionEncoder``, with the same embedding; outputs are logits.

    Layers and shapes::

        ConvTranspose(d, 128, 4 x 4), ReLU                    1 x 1 x d    -> 4 x 4 x 128
        ConvTranspose(128, 128, 1 x 4, stride 1 x 2), ReLU    4 x 4 x 128  -> 4 x 8 x 128
        ConvTranspose(128, 128, 1 x 4, stride 1 x 2), ReLU    4 x 8 x 128  -> 4 x 16 x 128
        ConvTranspose(128, 64, 4 x 4, stride 2), ReLU         4 x 16 x 128 -> 8 x 32 x 64
        ConvTranspose(64, 32, 4 x 4, stride 2), ReLU          8 x 32 x 64  -> 16 x 64 x 32
        ConvTranspose(32, 1, 4 x 4, stride 2), ReLU           16 x 64 x 32 -> 32 x 128 x 1
        h @ embedding.T + bias                                32 x 128     -> 32 x 1590

    Args:
      latent_dim: size d of the latent.
      embedding: embedding of the encoder; both share one array, whose gradient is the sum of both.
      width: channels before the last convolution; preceding ones have two and four times as many.
      dtype: type of the computation; by default that of z and the parameters.
      rngs: source of the initial parameters.

    Raises:
      ValueError: if ``embedding`` does not have 128 numbers per word.

    >>> rngs = nnx.Rngs(0)
    >>> encoder = mm.networks.CUBCaptionEncoder(20, num_words=50, width=8, rngs=rngs)
    >>> decoder = mm.networks.CUBCaptionDecoder(20, encoder.embedding, width=8, rngs=rngs)
    >>> decoder(jnp.zeros((5, 20))).shape
    (5, 32, 50)
    """

    def __init__(
        self,
        latent_dim: int,
        embedding: nnx.Param[Array],
        *,
        width: int = 32,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        if embedding.ndim != 2 or embedding.shape[1] != EMBEDDING_DIM:
            raise ValueError(
                f"embedding.shape is {embedding.shape}: give the encoder's embedding, "
                f"(num_words, {EMBEDDING_DIM})"
            )
        features = (4 * width, 4 * width, 4 * width, 2 * width, width, 1)
        self.dtype = dtype
        self.grid = ConvTranspose(
            latent_dim, features[0], KERNEL, padding="VALID", dtype=dtype, rngs=rngs
        )
        self.convs = nnx.List(
            ConvTranspose(a, b, kernel, strides, dtype=dtype, rngs=rngs)
            for (a, b), (kernel, strides) in zip(
                itertools.pairwise(features), reversed(WINDOWS), strict=True
            )
        )
        self.embedding = embedding
        self.bias = nnx.Param(jnp.zeros(embedding.shape[0]))

    def __call__(self, z: Float[Array, "n d"]) -> Float[Array, "n 32 v"]:
        h = jax.nn.relu(self.grid(z[:, None, None]))
        for conv in self.convs:
            h = jax.nn.relu(conv(h))
        variables = (h[..., 0], self.embedding[...], self.bias[...])
        h, embedding, bias = promote_dtype(variables, dtype=self.dtype)
        return jnp.matmul(h, embedding.T) + bias.reshape(1, 1, -1)
