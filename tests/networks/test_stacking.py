"""Networks of one architecture, run one by one, in a loop and in one call."""

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import mmvae_jax as mm
from mmvae_jax.maths.backward import STACKINGS, Backward, resolve_stacking
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.stacking import stack

DIMS = {"a": (4,), "b": (4,), "c": (6,), "d": (4,), "e": (4,)}
LIKELIHOODS = {"a": "normal", "b": "normal", "c": "normal", "d": "normal", "e": "bernoulli"}
ROUNDING = {"rtol": 1e-10, "atol": 1e-12}


def make_model(hidden=None):
    """Five modalities: a, b and d are alike, c has another shape, e another likelihood."""
    config = mm.MMVAEConfig(input_dims=DIMS, decoders_dist=LIKELIHOODS, latent_dim=3, K=4)
    rngs = nnx.Rngs(0)
    hidden = hidden or dict.fromkeys(DIMS, (5,))
    model = mm.MMVAE(
        config,
        {m: MLPEncoder(dim, 3, hidden=hidden[m], rngs=rngs) for m, dim in DIMS.items()},
        {m: MLPDecoder(3, dim, hidden=hidden[m], rngs=rngs) for m, dim in DIMS.items()},
        rngs=rngs,
    )
    double = jax.tree.map(lambda a: a.astype(float), nnx.state(model))
    nnx.update(model, double)
    return model


def make_batch():
    keys = jax.random.split(jax.random.key(1), len(DIMS))
    data = {m: jax.random.uniform(k, (6, *DIMS[m]), float) for m, k in zip(DIMS, keys, strict=True)}
    mask = {m: jnp.arange(6) % (2 + i) != i for i, m in enumerate(DIMS)}
    return mm.Batch(data, mask)


@pytest.mark.parametrize(
    ("kind", "style"),
    [
        ("sparse", "scan"),
        ("dense", "vmap"),
        pytest.param("dense", "scan", marks=pytest.mark.slow),
        pytest.param("sparse", "vmap", marks=pytest.mark.slow),
    ],
)
def test_same_values_and_gradients(x64, style, kind):
    """Five different networks, some alike: same metrics and gradient as one by one."""
    model, batch = make_model(), make_batch()

    def run(style):
        backward = Backward(kind, tolerance=0.0, chunk=7, stacking=style)
        return jax.jit(mm.value_and_grad, static_argnames="backward")(
            model, batch, jax.random.key(2), backward=backward
        )

    chex.assert_trees_all_close(run(style), run("separate"), **ROUNDING)


def names(model, style, networks="encoders"):
    traits = {m: (DIMS[m], LIKELIHOODS[m]) for m in DIMS}
    groups, _ = stack(getattr(model, networks), traits, style)
    return [group.names for group in groups]


def test_groups(x64):
    assert names(make_model(), "vmap") == [("a", "b", "d"), ("c",), ("e",)]
    assert names(make_model(), "separate") == [(m,) for m in DIMS]
    wider = make_model({**dict.fromkeys(DIMS, (5,)), "b": (7,)})
    assert names(wider, "scan", "decoders") == [("a", "d"), ("b",), ("c",), ("e",)]


def test_networks_with_random_streams_run_alone():
    class Dropped(MLPDecoder):
        def __init__(self, dim, rngs):
            super().__init__(3, dim, hidden=(5,), rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

    rngs = nnx.Rngs(0)
    decoders = {m: Dropped((4,), rngs) for m in "ab"}
    groups, _ = stack(decoders, {"a": 0, "b": 0}, "vmap")
    assert [group.names for group in groups] == [("a",), ("b",)]


def test_stacked_decoders_appear_once():
    """The compiled gradient has as many matrix products for ten modalities as for two."""

    def num_products(num_modalities):
        dims = {f"m{i}": (4,) for i in range(num_modalities)}
        config = mm.MMVAEConfig(input_dims=dims, latent_dim=3, K=4)
        model = mm.MMVAE(config, rngs=nnx.Rngs(0))
        batch = mm.Batch({m: jnp.zeros((6, 4)) for m in dims})
        backward = Backward("sparse", stacking="vmap")
        gradient = jax.make_jaxpr(
            lambda model: mm.value_and_grad(model, batch, jax.random.key(0), backward=backward)
        )(model)
        return str(gradient).count("dot_general")

    assert num_products(10) == num_products(2) > 0


def test_auto():
    assert resolve_stacking("auto") == "separate"  # the tests run on CPU
    assert all(resolve_stacking(style) == style for style in STACKINGS[1:])
    with pytest.raises(ValueError, match=r"stacking is 'loop': choose one of \['auto', 'separate'"):
        Backward(stacking="loop")
