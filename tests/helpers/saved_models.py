"""Models to save, and what to compare when they are loaded."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from helpers.small_model import DIMS, LIKELIHOOD, make_model

import mmvae_jax as mm
from mmvae_jax.networks.cub import CUBCaptionDecoder, CUBCaptionEncoder

FILES = {"config.json", "model.safetensors", "README.md"}
CONFIG = mm.MMVAEConfig(
    input_dims=DIMS,
    decoders_dist=LIKELIHOOD | {"b": "laplace"},
    decoder_dist_params={"b": {"scale": 0.75}},
    latent_dim=4,
    K=3,
)


def filled(model):
    """Returns the model with random parameters, which need no compilation."""
    rng = np.random.default_rng(0)
    graphdef, variables = nnx.split(model)
    values = jax.tree.map(
        lambda x: jnp.asarray(rng.standard_normal(x.shape, np.float32) / 10, x.dtype),
        nnx.to_pure_dict(variables),
    )
    return nnx.merge(graphdef, values)


def converted(model, dtype):
    """Returns the model with other parameters, of another type."""
    graphdef, variables = nnx.split(model)
    values = jax.tree.map(lambda x: jnp.asarray((np.float64(x) / 3).astype(dtype)), variables)
    return nnx.merge(graphdef, values)


def default_model(config=CONFIG, **options):
    return filled(nnx.eval_shape(lambda: mm.MMVAE(config, **options, rngs=nnx.Rngs(0))))


def small_model(**fields):
    """Returns a model whose networks are not the default."""
    return filled(nnx.eval_shape(lambda: make_model(**fields)))


@functools.cache
def abstract_model():
    return nnx.eval_shape(make_model)


def custom_networks():
    """Returns the networks of ``small_model``, without parameters."""
    model = abstract_model()
    return {"encoders": dict(model.encoders.items()), "decoders": dict(model.decoders.items())}


def tied_model(words=9):
    """Returns a model whose encoder and decoder share an embedding, without parameters."""
    config = mm.MMVAEConfig(
        input_dims={"caption": (32, words)}, decoders_dist={"caption": "categorical"}, latent_dim=4
    )

    def make():
        rngs = nnx.Rngs(0)
        encoder = CUBCaptionEncoder(4, num_words=words, width=2, rngs=rngs)
        decoder = CUBCaptionDecoder(4, encoder.embedding, width=2, rngs=rngs)
        return mm.MMVAE(config, {"caption": encoder}, {"caption": decoder}, rngs=rngs)

    return nnx.eval_shape(make)


def arrays_of(model):
    """Returns type, shape and bytes of every variable but random streams, by path."""
    variables = nnx.split(model, nnx.RngState, ...)[2]
    leaves = jax.tree.leaves_with_path(nnx.to_pure_dict(variables))
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): (
            str(x.dtype),
            x.shape,
            np.asarray(x).tobytes(),
        )
        for path, x in leaves
    }


def assert_same(given, expected):
    assert given.config == expected.config
    assert arrays_of(given) == arrays_of(expected)


class Constant(nnx.Module):
    """A network with the variables given, or without any."""

    def __init__(self, **variables):
        for name, x in variables.items():
            setattr(self, name, x)
