"""Log densities keep all digits where products have few, as on GPUs, whose default is TF32."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers.small_model import DIMS, make_data, make_model

import mmvae_jax as mm

BATCH = mm.Batch(make_data())
KEY = jax.random.key(0)


class WithoutProducts(nnx.Module):
    """A network whose outputs of these shapes have no matrix product."""

    def __init__(self, *shapes):
        self.shapes = shapes
        self.factor = nnx.Param(jnp.ones(()))

    def __call__(self, x):
        mean = self.factor * x.reshape(len(x), -1).mean(1)
        outputs = [
            jnp.broadcast_to(mean.reshape(-1, *[1] * len(shape)), (len(x), *shape))
            for shape in self.shapes
        ]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def model_without_products(**fields):
    encoders = {m: WithoutProducts((4,), (4,)) for m in DIMS}
    decoders = {m: WithoutProducts(dim) for m, dim in DIMS.items()}
    return mm.MMVAE(make_model(**fields).config, encoders, decoders, rngs=nnx.Rngs(0))


def gradient(kind, **fields):
    model = model_without_products(**fields)
    return partial(mm.value_and_grad, model, BATCH, KEY, backward=mm.Backward(kind, chunk=20))


ENCODE = partial(mm.encode, model_without_products(), BATCH, cond_mod=("a", "b"), key=KEY)
FUNCTIONS = {
    "sampled": gradient("sampled"),
    "of some experts": gradient("sparse", experts_per_step=2),
    "joint likelihood": partial(mm.compute_joint_nll, model_without_products(), BATCH, KEY, K=20),
    "importance weighting": partial(ENCODE, weighting="importance", return_mean=True),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_sums_of_log_densities_have_full_precision(name):
    """The networks have no products here, so that all products are those of the densities."""
    text = str(jax.make_jaxpr(FUNCTIONS[name])())
    products = text.split("dot_general[")[1:]
    assert products
    assert all("precision=(Precision.HIGHEST, Precision.HIGHEST)" in p[:400] for p in products)
