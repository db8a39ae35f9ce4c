"""Initial parameters of MLPs: their spread by layer."""

import chex
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmvae_jax.networks import MLPDecoder, MLPEncoder


def assert_uniform(values, limit):
    """Checks mean and standard deviation (to 5 standard errors) and range of uniform values."""
    values = np.asarray(values)
    std, size = limit / np.sqrt(3), values.size
    assert (1 - 20 / size) * limit < np.abs(values).max() <= limit
    assert abs(values.mean()) < 5 * std / np.sqrt(size)
    # The square of a uniform variable has a variance of 0.8 times its squared mean.
    assert abs((values**2).mean() / std**2 - 1) < 5 * np.sqrt(0.8 / size)


def assert_hidden(layers):
    """Checks the kernels and biases of hidden layers with spread kinks."""
    for layer in layers:
        root = np.sqrt(layer.kernel.shape[0])
        assert_uniform(layer.kernel[...], 1 / root)
        assert_uniform(layer.bias[...], 2 / root)


def test_encoder():
    encoder = MLPEncoder((6, 50), 16, hidden=(200, 400), rngs=nnx.Rngs(0))
    assert_hidden(encoder.hidden)
    for head in (encoder.loc, encoder.log_var):
        assert_uniform(head.kernel[...], 1 / np.sqrt(400))
        assert not head.bias[...].any()


def test_decoder_of_unbounded_outputs():
    decoder = MLPDecoder(32, (6, 50), hidden=(200, 400), rngs=nnx.Rngs(0))
    assert_hidden(decoder.hidden)
    assert_uniform(decoder.out.kernel[...], np.sqrt(0.03 / 400))
    assert not decoder.out.bias[...].any()


def test_networks_of_images_begin_as_in_flax():
    encoder = MLPEncoder((6, 50, 1), 16, hidden=(200,), rngs=nnx.Rngs(0))
    decoder = MLPDecoder(16, (6, 50, 1), hidden=(200,), sigmoid=True, rngs=nnx.Rngs(0))
    first = nnx.Linear(300, 200, rngs=nnx.Rngs(0))
    chex.assert_trees_all_equal(nnx.state(encoder.hidden[0]), nnx.state(first))
    for network in (encoder, decoder):
        for _, layer in nnx.iter_graph(network):
            if isinstance(layer, nnx.Linear):
                fan_in = layer.kernel.shape[0]
                np.testing.assert_allclose(layer.kernel[...].std(), fan_in**-0.5, rtol=0.05)
                assert not layer.bias[...].any()


def test_kinks_of_hidden_units_are_spread_over_the_prior():
    """Units switch sqrt(3 / d) from the origin in the mean, and not all at the origin."""
    layer = MLPDecoder(32, (3,), hidden=(2000,), rngs=nnx.Rngs(0)).hidden[0]
    assert_uniform(layer.bias[...], 2 / np.sqrt(32))
    distance = jnp.abs(layer.bias[...]) / jnp.linalg.norm(layer.kernel[...], axis=0)
    # The mean size of a bias is 1 / sqrt(d), and the norm of a kernel's column near sqrt(1/3).
    np.testing.assert_allclose(distance.mean(), np.sqrt(3 / 32), rtol=0.05)
