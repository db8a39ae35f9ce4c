"""Convolutional networks for images of any size."""

import re

import chex
import jax
import pytest
from flax import nnx
from helpers.network_checks import assert_everything_takes_part, output_shapes, run

from mmvae_jax.networks import ConvDecoder, ConvEncoder


def small(seed=0):
    return {"hidden": 32, "rngs": nnx.Rngs(seed)}


def normal(*shape):
    return jax.random.normal(jax.random.key(1), shape)


@pytest.mark.parametrize("dim", [(16, 16, 3), (28, 28, 1), (32, 32, 3), (9, 14, 2), (8, 11, 1)])
def test_shapes(dim):
    shapes = output_shapes(lambda: ConvEncoder(dim, 5, rngs=nnx.Rngs(0)), 7, *dim)
    assert shapes == [(7, 5), (7, 5)]
    assert output_shapes(lambda: ConvDecoder(5, dim, rngs=nnx.Rngs(0)), 7, 5) == [(7, *dim)]


@pytest.mark.slow
def test_everything_takes_part():
    """Also in images of odd and unequal sides, whose halves are rounded."""
    dim = (9, 14, 2)
    assert_everything_takes_part(ConvEncoder(dim, 5, features=(8, 16), **small()), normal(20, *dim))
    decoder = ConvDecoder(5, dim, features=(16, 8), **small())
    assert_everything_takes_part(decoder, normal(20, 5))
    assert bool((run(decoder, normal(20, 5)).std(0) > 0).all())


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
