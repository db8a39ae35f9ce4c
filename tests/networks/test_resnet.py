"""The residual networks for PolyMNIST."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.network_checks import (
    assert_bfloat16,
    assert_everything_takes_part,
    num_params,
    output_shapes,
    run,
    train,
)

import mmvae_jax as mm
from mmvae_jax.networks import (
    PolyMNISTResNetDecoder,
    PolyMNISTResNetEncoder,
    ResidualBlock,
)


def encoder(latent_dim=5, **options):
    return PolyMNISTResNetEncoder(latent_dim, rngs=nnx.Rngs(0), **options)


def decoder(latent_dim=5, **options):
    return PolyMNISTResNetDecoder(latent_dim, rngs=nnx.Rngs(0), **options)


def normal(*shape):
    return jax.random.normal(jax.random.key(1), shape)


def activation(x):
    return np.where(x > 0, x, 0.2 * x)


def convolution(conv, x):
    """Returns a convolution with zeros around the image, computed tap by tap."""
    height, width, _, _ = conv.kernel.shape
    padded = np.pad(x, ((0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0)))
    _, rows, columns, _ = x.shape
    taps = [
        padded[:, i : i + rows, j : j + columns] @ np.asarray(conv.kernel[i, j], x.dtype)
        for i in range(height)
        for j in range(width)
    ]
    return sum(taps) + (0 if conv.bias is None else np.asarray(conv.bias[...], x.dtype))


def residual(block, x):
    inner = convolution(block.inner, activation(x))
    shortcut = x if block.shortcut is None else convolution(block.shortcut, x)
    return shortcut + 0.1 * convolution(block.outer, activation(inner))


def with_biases(network):
    """Sets random biases, so that a missing one would show, and returns the network."""
    for path, param in nnx.to_flat_state(nnx.state(network)):
        if path[-1] == "bias":
            param.set_value(jax.random.normal(jax.random.key(3), param.shape))
    return network


@pytest.mark.parametrize(("in_features", "out_features"), [(4, 4), (3, 5), (5, 3)])
def test_block_is_its_equation(in_features, out_features, x64):
    block = with_biases(ResidualBlock(in_features, out_features, rngs=nnx.Rngs(0)))
    assert (block.shortcut is None) == (in_features == out_features)
    assert block.inner.bias.any()
    x = normal(2, 6, 5, in_features)
    # Double precision, in another order.
    chex.assert_trees_all_close(block(x), residual(block, np.asarray(x)), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_encoder_is_its_layers():
    network = with_biases(encoder(width=4))
    x = normal(2, 28, 28, 3)
    h = convolution(network.image, np.asarray(x))
    h = residual(network.blocks[0], h)
    for block in network.blocks[1:]:
        pooled = nnx.avg_pool(h, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        h = residual(block, np.asarray(pooled))
    flat = h.reshape(2, 7 * 7 * 16)
    expected = tuple(head(flat) for head in (network.loc, network.log_var))
    # Single precision through seven layers.
    chex.assert_trees_all_close(run(network, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_decoder_is_its_layers():
    network = with_biases(decoder(width=4))
    z = normal(2, 5)
    h = np.asarray(network.grid(z)).reshape(2, 7, 7, 16)
    for block in network.blocks[:-1]:
        h = np.kron(residual(block, h), np.ones((1, 2, 2, 1), h.dtype))
    h = activation(residual(network.blocks[-1], h))
    expected = convolution(network.image, h)
    chex.assert_trees_all_close(run(network, z), expected, rtol=1e-4, atol=1e-4)


def test_published_sizes():
    """Sizes of the layers of MMVAE+ in PyTorch, with one latent of 32."""
    # 1,792 for the image; blocks of 73,856, 118,976 and 475,520; heads of 401,440 each.
    assert num_params(lambda: encoder(32)) == 1_473_024
    assert output_shapes(lambda: encoder(32), 2, 28, 28, 3) == [(2, 32)] * 2
    # 413,952 for the grid; blocks of 475,392, 118,912 and 73,856; 1,731 for the image.
    assert num_params(lambda: decoder(32)) == 1_083_843
    assert output_shapes(lambda: decoder(32), 2, 32) == [(2, 28, 28, 3)]


@pytest.mark.slow
def test_everything_takes_part():
    assert_everything_takes_part(encoder(width=4), normal(8, 28, 28, 3))
    assert_everything_takes_part(decoder(width=4), normal(8, 5))


@pytest.mark.slow
def test_bfloat16():
    assert_bfloat16(lambda dtype: encoder(width=4, dtype=dtype), normal(2, 28, 28, 3))
    assert_bfloat16(lambda dtype: decoder(width=4, dtype=dtype), normal(2, 5))


@pytest.mark.slow
def test_trains():
    """On four gradients from one colour to another, which one latent tells apart."""
    ramp = jnp.linspace(0, 1, 28).reshape(1, 28, 1, 1)
    images = jnp.broadcast_to(ramp * jnp.linspace(0, 1, 4).reshape(4, 1, 1, 1), (4, 28, 28, 3))
    config = mm.MMVAEConfig(
        input_dims={"m0": (28, 28, 3)},
        latent_dim=5,
        K=1,
        decoders_dist={"m0": "laplace"},
        decoder_dist_params={"m0": {"scale": 0.5}},  # log p(x|z) is -2 |x - loc|, at most 0
    )
    networks = {"m0": encoder(width=4)}, {"m0": decoder(width=4)}
    _, share = train(mm.MMVAE(config, *networks, rngs=nnx.Rngs(0)), {"m0": images})
    assert share < 0.5
