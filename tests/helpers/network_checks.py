"""Checks of any pair of networks: sizes, gradients, half precision, and training."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import mmvae_jax as mm


def num_params(make):
    """Returns the number of parameters of a network without building it."""
    params = nnx.state(nnx.eval_shape(make), nnx.Param)
    return sum(math.prod(p.shape) for p in jax.tree.leaves(params))


def output_shapes(make, *shape):
    """Returns the output shapes of a network for an input of a shape, without building it."""
    outputs = nnx.eval_shape(lambda x: make()(x), jnp.zeros(shape))
    return [y.shape for y in jax.tree.leaves(outputs)]


def run(network, x):
    """Returns the outputs of a network, compiled as one program."""
    graphdef, params = nnx.split(network)
    return jax.jit(lambda params, x: nnx.merge(graphdef, params)(x))(params, x)


def assert_everything_takes_part(network, x):
    """Checks that every parameter and every entry of an input has a gradient."""
    graphdef, params = nnx.split(network)

    def loss(params, x):
        return sum(jnp.square(y).sum() for y in jax.tree.leaves(nnx.merge(graphdef, params)(x)))

    grads, dx = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, x)
    unused = [path for path, g in nnx.to_flat_state(grads) if not g[...].any()]
    assert not unused
    assert bool((dx != 0).any(0).all())


def assert_bfloat16(make, x):
    """Checks that ``make(dtype)`` computes in bfloat16, with parameters in single precision."""
    half, full = make(jnp.bfloat16), make(None)
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(nnx.state(half)))
    for y, expected in zip(*(jax.tree.leaves(run(net, x)) for net in (half, full)), strict=True):
        assert (y.dtype, expected.dtype) == (jnp.bfloat16, jnp.float32)
        error = np.linalg.norm(y.astype(jnp.float32) - expected) / np.linalg.norm(expected)
        assert 0 < error < 0.03  # A few layers, and each one rounds to 8 bits.


def train(model, data, *, num_steps=20, learning_rate=3e-3):
    """Returns the trained state, and its loss as a share of the loss before training."""
    state = mm.create_train_state(model, optax.adam(learning_rate), key=jax.random.key(1))
    batch = mm.Batch(data)
    before = mm.eval_step(state, batch, jax.random.key(2))["loss"]
    for _ in range(num_steps):
        state, _ = mm.train_step(state, batch)
    return state, float(mm.eval_step(state, batch, jax.random.key(2))["loss"] / before)
