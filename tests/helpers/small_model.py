"""A model of three small modalities, one of each kind of likelihood, and data for it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import mmvae_jax as mm

DIMS = {"a": (6,), "b": (4, 4, 1), "c": (3, 5)}
LIKELIHOOD = {"a": "normal", "b": "bernoulli", "c": "categorical"}
NUM_EXAMPLES = 8


def make_model(**fields):
    """An MMVAE with the config fields given."""
    settings = {"input_dims": DIMS, "decoders_dist": LIKELIHOOD, "latent_dim": 4, "K": 3}
    config = mm.MMVAEConfig(**{**settings, **fields})
    networks = {
        "encoders": {m: SmallEncoder(d, config.network_dim(m), m) for m, d in DIMS.items()},
        "decoders": {m: SmallDecoder(config.network_dim(m), d, m) for m, d in DIMS.items()},
    }
    return mm.MMVAE(config, **networks, rngs=nnx.Rngs(0))


class SmallEncoder(nnx.Module):
    def __init__(self, dim, latent_dim, name):
        rngs = nnx.Rngs(sum(map(ord, name)))
        self.hidden = nnx.Linear(int(np.prod(dim)), 8, rngs=rngs)
        self.loc = nnx.Linear(8, latent_dim, rngs=rngs)
        self.log_var = nnx.Linear(8, latent_dim, rngs=rngs)

    def __call__(self, x):
        h = jnp.tanh(self.hidden(x.reshape(len(x), -1)))
        return self.loc(h), self.log_var(h)


class SmallDecoder(nnx.Module):
    def __init__(self, latent_dim, dim, name):
        self.out = nnx.Linear(latent_dim, int(np.prod(dim)), rngs=nnx.Rngs(sum(map(ord, name)) + 1))
        self.dim = dim

    def __call__(self, z):
        return self.out(z).reshape(len(z), *self.dim)


def make_data():
    """Eight examples of every modality."""
    a, b, c = jax.random.split(jax.random.key(5), 3)
    return {
        "a": jax.random.normal(a, (NUM_EXAMPLES, *DIMS["a"])),
        "b": jax.random.bernoulli(b, 0.5, (NUM_EXAMPLES, *DIMS["b"])).astype(jnp.float32),
        "c": jax.nn.one_hot(jax.random.randint(c, (NUM_EXAMPLES, 3), 0, 5), 5),
    }


def every_mask():
    """Every pattern of three modalities once: one example has everything, one has nothing."""
    patterns = np.array([[i & 1, i & 2, i & 4] for i in range(NUM_EXAMPLES)], bool)
    return dict(zip(DIMS, patterns.T, strict=True))


def double(tree):
    is_float = jnp.issubdtype
    return jax.tree.map(
        lambda a: a.astype(jnp.float64) if is_float(a.dtype, jnp.floating) else a, tree
    )


def double_model(model):
    """The model in 64 bits."""
    nnx.update(model, double(nnx.state(model)))
    return model
