"""The networks for CUB's images and captions."""

import re

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
from mmvae_jax.networks import (
    CUBCaptionDecoder,
    CUBCaptionEncoder,
    CUBImageDecoder,
    CUBImageEncoder,
)

NUM_WORDS = 7


def image_encoder(latent_dim=5, **options):
    return CUBImageEncoder(latent_dim, rngs=nnx.Rngs(0), **options)


def image_decoder(latent_dim=5, **options):
    return CUBImageDecoder(latent_dim, rngs=nnx.Rngs(0), **options)


def caption_encoder(latent_dim=5, **options):
    return CUBCaptionEncoder(latent_dim, rngs=nnx.Rngs(0), **options)


def caption_decoder(latent_dim=5, num_words=NUM_WORDS, **options):
    embedding = nnx.Param(jax.random.normal(jax.random.key(0), (num_words, 128)))
    return CUBCaptionDecoder(latent_dim, embedding, rngs=nnx.Rngs(1), **options)


def normal(*shape):
    return jax.random.normal(jax.random.key(1), shape)


def caption_model(*, shared, K=1, width=8):
    """Returns a model of captions, with one embedding or a copy of it for the decoder."""
    config = mm.MMVAEConfig(
        input_dims={"caption": (32, NUM_WORDS)},
        latent_dim=5,
        K=K,
        decoders_dist={"caption": "categorical"},
    )
    encoder = caption_encoder(num_words=NUM_WORDS, width=width)
    embedding = encoder.embedding if shared else nnx.Param(encoder.embedding[...])
    decoder = CUBCaptionDecoder(5, embedding, width=width, rngs=nnx.Rngs(1))
    return mm.MMVAE(config, {"caption": encoder}, {"caption": decoder}, rngs=nnx.Rngs(2))


def caption_data():
    """Returns captions of all lengths as classes, with 1 as their end and 0 after it."""
    words = 2 + np.arange(4 * 32).reshape(4, 32) % (NUM_WORDS - 2)
    end = np.array([[5], [10], [20], [31]])
    place = np.arange(32)[None]
    captions = np.where(place < end, words, place == end).astype(np.int32)
    return {"caption": jnp.asarray(captions)}


def test_published_sizes_of_images():
    """Sizes of the layers of Shi et al. in PyTorch, with a latent of 32."""
    # 3,136, 131,200, 524,544 and 2,097,664 for the convolutions, 262,176 for each head.
    assert num_params(lambda: image_encoder(32)) == 3_280_896
    assert output_shapes(lambda: image_encoder(32), 2, 64, 64, 3) == [(2, 32)] * 2
    # 262,656 for the grid; 2,097,408, 524,416, 131,136 and 3,075.
    assert num_params(lambda: image_decoder(32)) == 3_018_691
    assert output_shapes(lambda: image_decoder(32), 2, 32) == [(2, 64, 64, 3)]


def test_published_sizes_of_captions():
    """Sizes of the kernels of Shi et al. in PyTorch, with a latent of 32, and the biases."""
    kernels = 512 + 32_768 + 131_072 + 65_536 + 65_536
    biases = 32 + 64 + 128 + 128 + 128
    heads = 2 * (65_536 + 32)
    vectors = 1590 * 128
    assert num_params(lambda: caption_encoder(32)) == vectors + kernels + biases + heads
    assert output_shapes(lambda: caption_encoder(32), 2, 32, 1590) == [(2, 32)] * 2
    sizes = {"latent_dim": 32, "num_words": 1590}
    # The grid, and the biases of 128, 128, 128, 64, 32, 1 channels and of the words.
    expected = vectors + 65_536 + kernels + 128 + 128 + 128 + 64 + 32 + 1 + 1590
    assert num_params(lambda: caption_decoder(**sizes)) == expected
    assert output_shapes(lambda: caption_decoder(**sizes), 2, 32) == [(2, 32, 1590)]


@pytest.mark.slow
def test_everything_of_images_takes_part():
    assert_everything_takes_part(image_encoder(width=4), normal(4, 64, 64, 3))
    assert_everything_takes_part(image_decoder(width=4), normal(8, 5))


@pytest.mark.slow
def test_everything_of_captions_takes_part():
    encoder = caption_encoder(num_words=NUM_WORDS, width=4)
    assert_everything_takes_part(encoder, normal(8, 32, NUM_WORDS))
    assert_everything_takes_part(caption_decoder(width=4), normal(8, 5))


@pytest.mark.slow
def test_bfloat16():
    def encoder(dtype):
        return caption_encoder(num_words=NUM_WORDS, width=4, dtype=dtype)

    assert_bfloat16(lambda dtype: image_encoder(width=4, dtype=dtype), normal(2, 64, 64, 3))
    assert_bfloat16(lambda dtype: image_decoder(width=4, dtype=dtype), normal(2, 5))
    assert_bfloat16(encoder, normal(2, 32, NUM_WORDS))
    assert_bfloat16(lambda dtype: caption_decoder(width=4, dtype=dtype), normal(2, 5))


@pytest.mark.slow
def test_images_train():
    ramp = jnp.linspace(0, 1, 64).reshape(1, 64, 1, 1)
    images = jnp.broadcast_to(ramp * jnp.linspace(0, 1, 4).reshape(4, 1, 1, 1), (4, 64, 64, 3))
    config = mm.MMVAEConfig(
        input_dims={"image": (64, 64, 3)},
        latent_dim=5,
        K=1,
        decoders_dist={"image": "laplace"},
        decoder_dist_params={"image": {"scale": 0.5}},  # log p(x|z) is -2 |x - loc|, at most 0
    )
    networks = {"image": image_encoder(width=4)}, {"image": image_decoder(width=4)}
    _, share = train(mm.MMVAE(config, *networks, rngs=nnx.Rngs(0)), {"image": images})
    assert share < 0.8


@pytest.mark.slow
def test_captions_train_with_one_embedding():
    state, share = train(caption_model(shared=True), caption_data(), learning_rate=1e-2)
    assert share < 0.8
    leaves = [p for p in jax.tree.leaves(state.params) if p.shape == (NUM_WORDS, 128)]
    assert len(leaves) == 1
    model = state.model()
    encoder, decoder = model.encoders["caption"], model.decoders["caption"]
    assert encoder.embedding is decoder.embedding
    assert bool((encoder.embedding[...] != caption_encoder(num_words=NUM_WORDS).embedding).any())


@pytest.mark.slow
@pytest.mark.parametrize(
    "backward",
    [
        pytest.param(mm.Backward("dense"), marks=pytest.mark.slow),
        mm.Backward("sparse"),
    ],
)
def test_one_embedding_has_the_gradients_of_both(backward):
    """That of the encoder and that of the decoder, were they two, added up."""
    grads = {}
    for shared in (True, False):
        model = caption_model(shared=shared, K=3, width=2)
        graphdef, params = nnx.split(model)

        def of_params(params, graphdef=graphdef):
            model, batch = nnx.merge(graphdef, params), mm.Batch(caption_data())
            return mm.value_and_grad(model, batch, jax.random.key(3), backward=backward)[1]

        grads[shared] = nnx.to_pure_dict(jax.jit(of_params)(params))
    # Whichever of the two comes first keeps the array that they share.
    networks = [grads[True][side]["caption"] for side in ("decoders", "encoders")]
    (together,) = (network["embedding"] for network in networks if "embedding" in network)
    encoder, decoder = (
        grads[False][side]["caption"]["embedding"] for side in ("encoders", "decoders")
    )
    assert encoder.any()
    assert decoder.any()
    chex.assert_trees_all_close(together, encoder + decoder, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(128, 7), (7, 64), (128,)])
def test_refuses_another_embedding(shape):
    with pytest.raises(ValueError, match=re.escape(f"embedding.shape is {shape}")):
        CUBCaptionDecoder(5, nnx.Param(jnp.zeros(shape)), rngs=nnx.Rngs(0))
