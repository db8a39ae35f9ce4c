"""Convolutional networks for images of any size."""

import re

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from mmvae_jax.networks import ConvDecoder, ConvEncoder


def small(seed=0):
    return {"hidden": 32, "rngs": nnx.Rngs(seed)}


def normal(*shape):
    return jax.random.normal(jax.random.key(1), shape)


def run(network, x):
    graphdef, params = nnx.split(network)
    return jax.jit(lambda params, x: nnx.merge(graphdef, params)(x))(params, x)


def gradients(network, x):
    """Gradients of the sum of squared outputs in the parameters and in x."""
    graphdef, params = nnx.split(network)

    def loss(params, x):
        return sum(jnp.square(y).sum() for y in jax.tree.leaves(nnx.merge(graphdef, params)(x)))

    grads, dx = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, x)
    return nnx.to_pure_dict(grads), dx


@pytest.mark.parametrize("dim", [(16, 16, 3), (28, 28, 1), (32, 32, 3), (9, 14, 2), (8, 11, 1)])
def test_shapes(dim):
    loc, log_var = jax.eval_shape(ConvEncoder(dim, 5, rngs=nnx.Rngs(0)), normal(7, *dim))
    assert (loc.shape, log_var.shape) == ((7, 5), (7, 5))
    x = jax.eval_shape(ConvDecoder(5, dim, rngs=nnx.Rngs(0)), normal(7, 5))
    assert x.shape == (7, *dim)


@pytest.mark.parametrize("dim", [(8, 8, 3), (9, 14, 2)])
def test_every_parameter_and_pixel_of_the_encoder_takes_part(dim):
    encoder = ConvEncoder(dim, 5, features=(8, 16), **small())
    grads, dx = gradients(encoder, normal(20, *dim))
    largest = jax.tree.map(lambda g: jnp.abs(g).max(), grads)
    assert all(value > 0 for value in jax.tree.leaves(largest)), largest
    assert bool((dx != 0).any(0).all())


@pytest.mark.parametrize("dim", [(8, 8, 3), (9, 14, 2)])
def test_every_parameter_and_pixel_of_the_decoder_takes_part(dim):
    decoder = ConvDecoder(5, dim, features=(16, 8), **small())
    z = normal(20, 5)
    grads, dz = gradients(decoder, z)
    largest = jax.tree.map(lambda g: jnp.abs(g).max(), grads)
    assert all(value > 0 for value in jax.tree.leaves(largest)), largest
    assert bool((dz != 0).any(0).all())
    assert bool((run(decoder, z).std(0) > 0).all())


def test_sigmoid_is_all_that_it_changes():
    linear, squashed = (
        ConvDecoder(5, (8, 9, 2), features=(8, 4), sigmoid=sigmoid, hidden=16, rngs=nnx.Rngs(0))
        for sigmoid in (False, True)
    )
    z = normal(3, 5)
    x = run(linear, z)
    assert bool((x < 0).any())
    chex.assert_trees_all_close(run(squashed, z), jax.nn.sigmoid(x), rtol=1e-5)


def test_features_set_depth_and_channels():
    encoder = ConvEncoder((15, 16, 3), 5, features=(8, 16, 32), **small())
    shapes = [conv.kernel.shape for conv in encoder.convs]
    assert shapes == [(4, 4, 3, 8), (4, 4, 8, 16), (4, 4, 16, 32)]
    assert encoder.dense.kernel.shape == (2 * 2 * 32, 32)

    decoder = ConvDecoder(5, (15, 16, 3), features=(32, 16, 8), **small())
    shapes = [conv.kernel.shape for conv in decoder.convs]
    assert shapes == [(4, 4, 32, 16), (4, 4, 16, 8), (4, 4, 8, 3)]
    assert decoder.grid.kernel.shape == (32, 2 * 2 * 32)
    assert jax.eval_shape(decoder, normal(2, 5)).shape == (2, 15, 16, 3)


def test_stacked_parameters_equal_one_by_one():
    networks = [ConvDecoder(5, (8, 9, 2), features=(8, 4), **small(m)) for m in range(2)]
    graphdef, _ = nnx.split(networks[0])
    params = [nnx.state(network) for network in networks]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    z = normal(2, 3, 5)
    together = jax.jit(jax.vmap(lambda params, z: nnx.merge(graphdef, params)(z)))(stacked, z)
    one_by_one = jnp.stack([run(network, z[m]) for m, network in enumerate(networks)])
    chex.assert_trees_all_close(together, one_by_one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("dim", "features"),
    [((28, 28), (32, 64)), ((28, 28, 0), (32, 64)), ((3, 28, 1), (32, 64)), ((28, 28, 1), ())],
    ids=["axes", "channels", "too_small", "no_features"],
)
def test_images_that_cannot_be_halved_are_refused(dim, features):
    with pytest.raises(ValueError, match=re.escape(f"input_dim is {dim}")):
        ConvEncoder(dim, 5, features=features, **small())
    with pytest.raises(ValueError, match=re.escape(f"output_dim is {dim}")):
        ConvDecoder(5, dim, features=features, **small())
