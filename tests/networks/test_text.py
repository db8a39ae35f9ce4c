"""The networks for the text of MNIST-SVHN-Text."""

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
    train,
)

import mmvae_jax as mm
from mmvae_jax.networks import TextDecoder, TextEncoder

SMALL = {"num_characters": 6, "width": 8}


def encoder(latent_dim=5, **options):
    return TextEncoder(latent_dim, rngs=nnx.Rngs(0), **options)


def decoder(latent_dim=5, **options):
    return TextDecoder(latent_dim, rngs=nnx.Rngs(0), **options)


def normal(*shape):
    return jax.random.normal(jax.random.key(1), shape)


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.slow
def test_encoder_is_its_layers(x64):
    """The convolutions as sums over places, in double precision."""
    network = encoder(**SMALL)
    x = normal(3, 8, 6)
    h = relu(np.asarray(network.characters(x)))
    padded = np.pad(h, ((0, 0), (1, 1), (0, 0)))
    kernel = np.asarray(network.halve.kernel[0])
    h = relu(
        np.stack([np.einsum("nkc,kcf->nf", padded[:, p : p + 4], kernel) for p in (0, 2, 4, 6)], 1)
    )
    h = relu(np.einsum("nkc,kcf->nf", h, np.asarray(network.join.kernel[0])))
    expected = network.loc(h), network.log_var(h)
    chex.assert_trees_all_close(network(x), expected, rtol=1e-6, atol=1e-6)


def test_decoder_is_its_layers(x64):
    """The transposed convolutions as what each input adds to the places it reaches."""
    network = decoder(**SMALL)
    z = normal(3, 5)
    h = np.asarray(network.dense(z))
    # A transposed convolution of flax slides its kernel over the input: mirrored, seen from there.
    split, double = (np.asarray(c.kernel[0, ::-1]) for c in (network.split, network.double))
    h = relu(np.einsum("nc,kcf->nkf", h, split))
    reached = np.zeros((3, 10, 8))
    for place in range(4):
        reached[:, 2 * place : 2 * place + 4] += np.einsum("nc,kcf->nkf", h[:, place], double)
    expected = network.characters(relu(reached[:, 1:-1]))
    chex.assert_trees_all_close(network(z), expected, rtol=1e-6, atol=1e-6)


def test_published_sizes():
    """Sizes of the layers of MoPoE in PyTorch, with a latent of 32."""
    # 9,216 for the characters, 65,664 for each convolution, 4,128 for each head.
    assert num_params(lambda: encoder(32)) == 148_800
    assert output_shapes(lambda: encoder(32), 2, 8, 71) == [(2, 32)] * 2
    # 4,224 for the dense layer, 65,664 for each convolution, 9,159 for the characters.
    assert num_params(lambda: decoder(32)) == 144_711
    assert output_shapes(lambda: decoder(32), 2, 32) == [(2, 8, 71)]


@pytest.mark.slow
def test_everything_takes_part():
    assert_everything_takes_part(encoder(**SMALL), normal(8, 8, 6))
    assert_everything_takes_part(decoder(**SMALL), normal(8, 5))


def test_bfloat16():
    assert_bfloat16(lambda dtype: encoder(**SMALL, dtype=dtype), normal(3, 8, 6))
    assert_bfloat16(lambda dtype: decoder(**SMALL, dtype=dtype), normal(3, 5))


@pytest.mark.slow
def test_trains():
    """On one-hot words with a letter that differs and the rest the same."""
    letters = jnp.zeros((6, 8), jnp.int32).at[:, 3].set(jnp.arange(6))
    config = mm.MMVAEConfig(
        input_dims={"text": (8, 6)}, latent_dim=5, K=1, decoders_dist={"text": "categorical"}
    )
    networks = {"text": encoder(**SMALL)}, {"text": decoder(**SMALL)}
    model = mm.MMVAE(config, *networks, rngs=nnx.Rngs(0))
    _, share = train(model, {"text": jax.nn.one_hot(letters, 6)}, learning_rate=1e-2)
    assert share < 0.5
