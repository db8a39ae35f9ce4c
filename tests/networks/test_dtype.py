"""Networks that compute in half precision, with everything else in single precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mmvae_jax as mm
from mmvae_jax.networks import (
    ConvDecoder,
    ConvEncoder,
    MLPDecoder,
    MLPEncoder,
    PolyMNISTDecoder,
    PolyMNISTEncoder,
    SVHNDecoder,
    SVHNEncoder,
)

DIM = 4
NETWORKS = {
    "mlp": ((6,), MLPEncoder, MLPDecoder),
    "conv": ((8, 8, 1), ConvEncoder, ConvDecoder),
    "svhn": ((32, 32, 3), SVHNEncoder, SVHNDecoder),
    "polymnist": ((28, 28, 3), PolyMNISTEncoder, PolyMNISTDecoder),
}


def make_model(name, dtype):
    shape, encoder, decoder = NETWORKS[name]
    rngs = nnx.Rngs(0)
    own_shape = name in ("svhn", "polymnist")
    encoder = encoder(*(() if own_shape else (shape,)), DIM, dtype=dtype, rngs=rngs)
    decoder = decoder(DIM, *(() if own_shape else (shape,)), dtype=dtype, rngs=rngs)
    config = mm.MMVAEConfig(input_dims={"x": shape}, latent_dim=DIM, K=3)
    return mm.MMVAE(config, {"x": encoder}, {"x": decoder}, rngs=rngs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if n in ("polymnist", "svhn") else ())
        for n in NETWORKS
    ],
)
def test_bound_in_bfloat16(name):
    """bfloat16 keeps 8 bits: each density term is off by about 0.4%, their sum by less."""
    shape = NETWORKS[name][0]
    batch = mm.Batch({"x": jax.random.uniform(jax.random.key(0), (4, *shape))})
    metrics, grads = {}, {}
    for dtype in (None, jnp.bfloat16):
        model = make_model(name, dtype)
        run = jax.jit(lambda model: mm.value_and_grad(model, batch, jax.random.key(1)))
        metrics[dtype], grads[dtype] = run(model)
    full, half = metrics[None], metrics[jnp.bfloat16]
    np.testing.assert_allclose(half["loss"], full["loss"], rtol=2e-3)
    assert half["loss"] != full["loss"]
    assert all(g.dtype == jnp.float32 for g in jax.tree.leaves(grads[jnp.bfloat16]))
    assert all(value.dtype == jnp.float32 for value in half.values())
    flat = [jnp.concatenate([g.ravel() for g in jax.tree.leaves(tree)]) for tree in grads.values()]
    error = jnp.linalg.norm(flat[1] - flat[0]) / jnp.linalg.norm(flat[0])
    assert 0 < error < 0.1


def test_default_networks():
    config = mm.MMVAEConfig(input_dims={"x": (6,)}, latent_dim=DIM, K=3)
    model = mm.MMVAE(config, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert model.encoders["x"](jnp.zeros((2, 6)))[0].dtype == jnp.bfloat16
    assert model.decoders["x"](jnp.zeros((2, DIM))).dtype == jnp.bfloat16
    experts = model.experts({"x": jnp.zeros((2, 6))})
    assert experts.loc.dtype == experts.scale.dtype == jnp.float32
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert mm.decode(model, jnp.zeros((2, DIM)))["x"].dtype == jnp.float32
