"""Matrix products over chunks of a batch, so that the patches of one chunk fit the cache."""

import math

import jax.export
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from mmvae_jax.networks.cpu_conv.matrix_products import MATRIX_PRODUCTS, Arrays, Window

# Bytes of patches held at a time: about one core's share of the cache. Patches of a whole batch
# pass through main memory, which takes several times as long as the arithmetic.
CHUNK_BYTES = 8 * 2**20


def in_chunks(name: str, window: Window, known: Arrays) -> Array:
    """Returns a derivative by matrix products over chunks of the batch.

    Chunk i holds every ``num_chunks``-th example from example i on. Where a batch is sharded, each
    chunk thereby holds an equal part of every device's examples.
    """
    images = known["x" if "x" in known else "y"]
    dtype, num_chunks = images.dtype, _num_chunks(window, known)
    chunks = {n: _split(array, num_chunks) for n, array in known.items() if n != "w"}

    def product(i: Array | int) -> Array:
        chunk = {n: lax.dynamic_index_in_dim(x, i, 1, keepdims=False) for n, x in chunks.items()}
        return MATRIX_PRODUCTS[name](window, **(known | chunk))

    first = product(0)  # With several chunks only its shape and type are used, and XLA drops it.
    if num_chunks == 1:
        return first.astype(dtype)
    if name == "w":  # dT/dw sums over examples, hence over chunks.
        add, zeros = lambda i, total: total + product(i), jnp.zeros_like(first)
        return lax.fori_loop(0, num_chunks, add, zeros).astype(dtype)
    stack = jnp.zeros_like(first, dtype, shape=(len(first), num_chunks, *first.shape[1:]))

    def put(i: Array, stack: Array) -> Array:
        return lax.dynamic_update_index_in_dim(stack, product(i).astype(dtype), i, 1)

    stack = lax.fori_loop(0, num_chunks, put, stack)
    return stack.reshape(len(first) * num_chunks, *first.shape[1:])[: len(images)]


def _split(x: Array, num_chunks: int) -> Array:
    """Reshapes ``[n, ...] -> [n / num_chunks, num_chunks, ...]``, padding n with zeros."""
    x = jnp.pad(x, ((0, -x.shape[0] % num_chunks), *((0, 0),) * (x.ndim - 1)))
    return x.reshape(x.shape[0] // num_chunks, num_chunks, *x.shape[1:])


def _num_chunks(window: Window, known: Arrays) -> int:
    """Returns the number of chunks with patches below ``CHUNK_BYTES``: a divisor of n if near."""
    images = known["x" if "x" in known else "y"]
    if jax.export.is_symbolic_dim(images.shape[0]):
        return 1  # An exported program for any batch size has no number to divide.
    channels = known["x"].shape[3] if "x" in known else known["w"].shape[2]
    num_values = len(images) * math.prod(window.places) * math.prod(window.kernel) * channels
    num_bytes = num_values * images.dtype.itemsize
    wanted = max(1, min(len(images), -(-num_bytes // CHUNK_BYTES)))
    divisors = (num for num in range(wanted, 2 * wanted) if len(images) % num == 0)
    return next(divisors, wanted)
