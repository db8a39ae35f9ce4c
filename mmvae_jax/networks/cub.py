"""The convolutional networks for CUB of Shi et al. 2019 (arXiv 1911.03393): images and captions."""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype
from jaxtyping import Array, Float

from mmvae_jax.networks.conv import Conv, ConvTranspose
from mmvae_jax.networks.mlp import EncoderOutput

NUM_WORDS = 1590
EMBEDDING_DIM = 128
KERNEL = (4, 4)
# Kernels and strides for a caption, an image of 32 words x 128 numbers: halve both axes, then
# the numbers alone.
WINDOWS = ((KERNEL, (2, 2)),) * 3 + (((1, 4), (1, 2)),) * 2


class CUBImageEncoder(nnx.Module):
    """Four convolutions and two heads that see all that is left of the image.

        Conv(3, 64, 4 x 4, stride 2), ReLU      64 x 64 x 3   -> 32 x 32 x 64
        Conv(64, 128, 4 x 4, stride 2), ReLU    32 x 32 x 64  -> 16 x 16 x 128
        Conv(128, 256, 4 x 4, stride 2), ReLU   16 x 16 x 128 -> 8 x 8 x 256
        Conv(256, 512, 4 x 4, stride 2), ReLU   8 x 8 x 256   -> 4 x 4 x 512
        Conv(512, d, 4 x 4) for loc, Conv(512, d, 4 x 4) for log_var

    Args:
      latent_dim: size d of the latent.
      width: channels of the first convolution; each of the others doubles them.
      dtype: type to compute in; by default that of the images and parameters.
      rngs: source of the initial parameters.
    """

    def __init__(
        self, latent_dim: int, *, width: int = 64, dtype: Dtype | None = None, rngs: nnx.Rngs
    ):
        features = (3, width, 2 * width, 4 * width, 8 * width)
        self.convs = nnx.List(
            Conv(a, b, KERNEL, strides=2, dtype=dtype, rngs=rngs)
            for a, b in itertools.pairwise(features)
        )
        self.loc, self.log_var = (
            Conv(features[-1], latent_dim, KERNEL, padding="VALID", dtype=dtype, rngs=rngs)
            for _ in range(2)
        )

    def __call__(self, x: Float[Array, "n 64 64 3"]) -> EncoderOutput:
        h = x
        for conv in self.convs:
            h = jax.nn.relu(conv(h))
        return self.loc(h)[:, 0, 0], self.log_var(h)[:, 0, 0]


class CUBImageDecoder(nnx.Module):
    """``CUBImageEncoder`` mirrored.

        ConvTranspose(d, 512, 4 x 4), ReLU                1 x 1 x d     -> 4 x 4 x 512
        ConvTranspose(512, 256, 4 x 4, stride 2), ReLU    4 x 4 x 512   -> 8 x 8 x 256
        ConvTranspose(256, 128, 4 x 4, stride 2), ReLU    8 x 8 x 256   -> 16 x 16 x 128
        ConvTranspose(128, 64, 4 x 4, stride 2), ReLU     16 x 16 x 128 -> 32 x 32 x 64
        ConvTranspose(64, 3, 4 x 4, stride 2), sigmoid    32 x 32 x 64  -> 64 x 64 x 3

    Args:
      latent_dim: size d of the latent.
      width: channels before the last convolution; each of the others halves them.
      dtype: type to compute in; by default that of z and the parameters.
      rngs: source of the initial parameters.
    """

    def __init__(
        self, latent_dim: int, *, width: int = 64, dtype: Dtype | None = None, rngs: nnx.Rngs
    ):
        features = (8 * width, 4 * width, 2 * width, width, 3)
        self.grid = ConvTranspose(
            latent_dim, features[0], KERNEL, padding="VALID", dtype=dtype, rngs=rngs
        )
        self.convs = nnx.List(
            ConvTranspose(a, b, KERNEL, strides=2, dtype=dtype, rngs=rngs)
            for a, b in itertools.pairwise(features)
        )

    def __call__(self, z: Float[Array, "n d"]) -> Float[Array, "n 64 64 3"]:
        h = self.grid(z[:, None, None])
        for conv in self.convs:
            h = conv(jax.nn.relu(h))
        return jax.nn.sigmoid(h)


class CUBCaptionEncoder(nnx.Module):
    """Convolutions over 32 embedded words, and two heads that see all that is left of them.

        x @ embedding                                   32 x 1590     -> 32 x 128 x 1
        Conv(1, 32, 4 x 4, stride 2), ReLU              32 x 128 x 1  -> 16 x 64 x 32
        Conv(32, 64, 4 x 4, stride 2), ReLU             16 x 64 x 32  -> 8 x 32 x 64
        Conv(64, 128, 4 x 4, stride 2), ReLU            8 x 32 x 64   -> 4 x 16 x 128
        Conv(128, 128, 1 x 4, stride 1 x 2), ReLU       4 x 16 x 128  -> 4 x 8 x 128
        Conv(128, 128, 1 x 4, stride 1 x 2), ReLU       4 x 8 x 128   -> 4 x 4 x 128
        Conv(128, d, 4 x 4) for loc, Conv(128, d, 4 x 4) for log_var

    Differs from the code of Shi et al. in two things. Biases stand in the place of BatchNorm, which
    carries state from call to call. Padding is a word like any other: there its vector starts at
    zero, and the decoder alone trains it.

    Args:
      latent_dim: size d of the latent.
      num_words: size of the vocabulary.
      width: channels of the first convolution; the others have two and four times as many.
      dtype: type to compute in; by default that of the captions and parameters.
      rngs: source of the initial parameters.

    Attributes:
      embedding: a vector for every word, ``[num_words, 128]``; ``CUBCaptionDecoder`` takes it.
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
    """``CUBCaptionEncoder`` mirrored, down to its embedding, transposed; the output are logits.

        ConvTranspose(d, 128, 4 x 4), ReLU                    1 x 1 x d    -> 4 x 4 x 128
        ConvTranspose(128, 128, 1 x 4, stride 1 x 2), ReLU    4 x 4 x 128  -> 4 x 8 x 128
        ConvTranspose(128, 128, 1 x 4, stride 1 x 2), ReLU    4 x 8 x 128  -> 4 x 16 x 128
        ConvTranspose(128, 64, 4 x 4, stride 2), ReLU         4 x 16 x 128 -> 8 x 32 x 64
        ConvTranspose(64, 32, 4 x 4, stride 2), ReLU          8 x 32 x 64  -> 16 x 64 x 32
        ConvTranspose(32, 1, 4 x 4, stride 2), ReLU           16 x 64 x 32 -> 32 x 128 x 1
        h @ embedding.T + bias                                32 x 128     -> 32 x 1590

    Args:
      latent_dim: size d of the latent.
      embedding: that of the encoder. It is one array, with gradients from both.
      width: channels before the last convolution; those before it have two and four times as many.
      dtype: type to compute in; by default that of z and the parameters.
      rngs: source of the initial parameters.

    Raises:
      ValueError: if ``embedding`` has other than 128 numbers a word.

    >>> rngs = nnx.Rngs(0)
    >>> encoder = CUBCaptionEncoder(64, num_words=50, width=8, rngs=rngs)
    >>> decoder = CUBCaptionDecoder(64, encoder.embedding, width=8, rngs=rngs)
    >>> decoder(jnp.zeros((2, 64))).shape
    (2, 32, 50)
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
                f"embedding has shape {embedding.shape}, expected (num_words, {EMBEDDING_DIM}): "
                "give that of the encoder"
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
