"""An MMVAE of four modalities whose experts draw from places of their own.

Which expert drew a latent shows from the latent. Its networks have dropout and are in training
mode; its likelihoods are one of each kind.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import mmvae_jax as mm

DIMS = {"a": (2,), "b": (3, 2, 1), "c": (2, 4), "d": (3,)}
NAMES = tuple(DIMS)
LIKELIHOODS = {"a": "normal", "b": "bernoulli", "c": "categorical", "d": "laplace"}
CONFIG = mm.MMVAEConfig(
    input_dims=DIMS,
    latent_dim=2,
    decoders_dist=LIKELIHOODS,
    decoder_dist_params={"a": {"scale": 0.5}, "d": {"scale": 2.0}},
    prior_and_posterior_dist="normal",
)
# What is observed of six examples, example by example.
MASK = np.array(
    [[1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0], [1, 0, 0, 1]]
)
MASK = MASK.astype(bool).T
NUM_EXAMPLES = MASK.shape[1]


class Expert(nnx.Module):
    """Dropout, then a linear map into a place of its own: which expert drew z shows from z."""

    def __init__(self, dim, center, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.linear = nnx.Linear(int(np.prod(dim)), 2, rngs=rngs)
        self.center = center

    def __call__(self, x):
        loc = self.linear(self.dropout(x.reshape(len(x), -1)))
        return jnp.tanh(loc) + self.center, jnp.full_like(loc, -6.0)


class Decoder(nnx.Module):
    def __init__(self, dim, rngs):
        self.linear = nnx.Linear(2, int(np.prod(dim)), rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.dim = dim

    def __call__(self, z):
        return self.dropout(self.linear(z)).reshape(len(z), *self.dim) / 10


def make_model(config=CONFIG):
    """Experts a, b, c and d draw near 10, 20, 30 and 40; in training mode, with dropout."""
    rngs = nnx.Rngs(0)
    encoders = {m: Expert(DIMS[m], 10.0 * (1 + NAMES.index(m)), rngs) for m in config.modalities}
    decoders = {m: Decoder(DIMS[m], rngs) for m in config.modalities}
    return mm.MMVAE(config, encoders, decoders, rngs=rngs)


def make_batch(mask=MASK, seed=0):
    """NaN in the place of what is missing."""
    rng = np.random.default_rng(seed)
    data = {}
    for name, seen in zip(NAMES, mask, strict=True):
        x = rng.uniform(size=(len(seen), *DIMS[name])).astype(np.float32)
        x = x / x.sum(-1, keepdims=True) if LIKELIHOODS[name] == "categorical" else x
        x[~seen] = np.nan
        data[name] = x
    return mm.Batch(data, dict(zip(NAMES, mask, strict=True)))


def complete_batch(num_examples=NUM_EXAMPLES):
    return make_batch(np.ones((4, num_examples), bool))


def locations(model, batch):
    """Every expert's location, ``[m b d]``."""
    model = nnx.view(model, deterministic=True)
    return np.stack([np.asarray(model.encoders[m](jnp.asarray(batch.data[m]))[0]) for m in NAMES])


def source(z):
    """Which expert drew each latent: 0 for a, and so on."""
    return np.round(np.asarray(z)[..., 0] / 10).astype(int) - 1


def key(seed=0):
    return jax.random.key(seed)
