"""What the networks ask for and what the device can do."""

import time
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.benchmark.config import Config
from experiments.benchmark.models import build_model

PRODUCT_SIZE = 2048
NUM_PRODUCTS = 16  # about two seconds of a CPU: the best of them had all cores to itself


class Rates:
    """Operations per call, and per second of a matrix product; in a process of its own."""

    def __init__(self, config: Config):
        case = config.model_case
        model = nnx.eval_shape(lambda: build_model(case, 1, config.seed))
        dims = {name: modality.dim for name, modality in case.modalities.items()}
        self.encoders = sum(network_flops(model.encoders[m], dim) for m, dim in dims.items())
        self.decoders = sum(network_flops(model.decoders[m], (case.latent_dim,)) for m in dims)

    def ready(self) -> dict[str, Any]:
        """Operations of all encoders for an example, and of all decoders for a particle."""
        return {
            "encoder_flops": self.encoders,
            "decoder_flops": self.decoders,
            "product_flops_per_second": product_rate(),
            "product_size": PRODUCT_SIZE,
        }


def network_flops(network: nnx.Module, dim: tuple[int, ...]) -> float:
    """Operations for one example ``[*dim]``, as XLA counts them; no arrays are needed."""
    graphdef, state = nnx.split(network)
    example = jax.ShapeDtypeStruct((1, *dim), jnp.float32)
    # A batch of one: XLA would count the body of a loop over a batch once.
    lowered = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x)).lower(state, example)
    cost = lowered.cost_analysis()
    assert cost is not None, "XLA counts operations on every platform"
    return cost["flops"]


def product_rate(size: int = PRODUCT_SIZE, repeats: int = NUM_PRODUCTS) -> float:
    """Operations per second of the best of several float32 matrix products, default precision."""
    a, b = jax.random.normal(jax.random.key(0), (2, size, size))
    product = jax.jit(jnp.matmul).lower(a, b).compile()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(product(a, b))
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)
