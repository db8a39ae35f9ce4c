"""Floating-point operations of a task, and the rate that this machine can reach.

A step decodes the K particles of M experts of every example into all modalities, and encodes every
modality once. A pass backward costs two forward. With E and D the forward operations of all
encoders and decoders over a batch, and s the share of particles that is back-propagated, a step is

    dense    3 E + 3 D
    others   3 E + D + 3 s D      forward over all, then forward and backward over the kept

and a joint likelihood, of K particles per example in all, is E + D. Operations outside the
networks, of densities and Adam among them, are not counted.
"""

import time

import jax
import jax.numpy as jnp
from flax import nnx

PRODUCT_SIZE, GPU_PRODUCT_SIZE = 2048, 8192
NUM_PRODUCTS = 16  # about two seconds of a CPU, so that one of them has all cores


def forward_flops(
    task: str, *, encoders: float, decoders: float, num_experts: int, K: int, batch: int
) -> tuple[float, float]:
    """Returns E and D of a batch.

    Args:
      task: "step" or "nll".
      encoders: operations of all encoders for one example.
      decoders: operations of all decoders for one particle.
      num_experts: number of experts M.
      K: particles, per expert of a step and in all of a joint likelihood.
      batch: number of examples.
    """
    num_particles = K * batch * (num_experts if task == "step" else 1)
    return encoders * batch, decoders * num_particles


def model_flops(
    encode: float, decode: float, *, backward: str | None, share: float | None
) -> float | None:
    """Returns the operations of one repetition, None where the share is unknown.

    Args:
      encode: forward operations E of all encoders.
      decode: forward operations D of all decoders.
      backward: kind of backward pass; None for a joint likelihood.
      share: share of the particles that is back-propagated.
    """
    if backward is None:
        return encode + decode
    if backward == "dense":
        return 3 * (encode + decode)
    return None if share is None else 3 * encode + (1 + 3 * share) * decode


def network_flops(network: nnx.Module, dim: tuple[int, ...]) -> float:
    """Returns XLA's count of a network's operations for one example ``[*dim]``."""
    graphdef, state = nnx.split(network)
    # A batch of one, because XLA counts the body of a loop over a batch once.
    example = jax.ShapeDtypeStruct((1, *dim), jnp.float32)
    forward = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))
    with jax.default_device(jax.devices("cpu")[0]):  # the count for a GPU can be missing
        lowered = forward.lower(state, example)
    cost = lowered.cost_analysis()
    assert cost is not None, "XLA counts operations on CPUs"
    return cost["flops"]


def product_size() -> int:
    """Returns the size of a matrix product that keeps JAX's default device busy."""
    return PRODUCT_SIZE if jax.default_backend() == "cpu" else GPU_PRODUCT_SIZE


def product_rate(size: int, dtype: str = "float32", repeats: int = NUM_PRODUCTS) -> float:
    """Returns operations per second of the fastest of several matrix products.

    Args:
      size: rows and columns of the matrices.
      dtype: type of the matrices; products of float32 have JAX's default precision.
      repeats: number of products.
    """
    a, b = jax.random.normal(jax.random.key(0), (2, size, size), dtype)
    product = jax.jit(jnp.matmul).lower(a, b).compile()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(product(a, b))
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)
