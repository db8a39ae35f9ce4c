"""The trilinear form behind convolutions, and its derivatives.

For an image x, a kernel w and an output y, with strides (s, t) and padding (top, left), let

    T(x, w, y) = sum x[n, s o + i - top, t p + j - left, c] w[i, j, c, f] y[n, o, p, f],

summed over all indices. T is linear in each argument. Its three first derivatives are

    dT/dy (x, w)   the convolution of x with w,
    dT/dx (w, y)   the transposed convolution of y with w,
    dT/dw (x, y)   the gradient of a convolution with respect to its kernel.

Each has the shape of the missing argument. ``derivative`` is the function to call; on CPU it runs
``matrix_products`` over ``chunks`` of the batch.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from mmvae_jax.networks.cpu_conv.chunks import in_chunks
from mmvae_jax.networks.cpu_conv.matrix_products import Arrays, Window


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
@partial(jax.jit, static_argnums=(0, 1))
def derivative(name: str, window: Window, known: Arrays) -> Array:
    """Returns dT/dname for ``name`` in x, w, y, given the other two arrays."""
    return lax.platform_dependent(
        known, cpu=partial(in_chunks, name, window), default=partial(_native, name, window)
    )


# The derivative rule. Let a, b, c be x, w, y in any order, and D = dT/da (b, c) be the primal
# output, with cotangent g. T is linear in a, so
#
#     <g, D> = T with a = g,        and therefore
#     d<g, D>/db = dT/db (g, c),    d<g, D>/dc = dT/dc (g, b):
#
# the pullback of each derivative consists of the other two, with g in the place of a. The rule
# never leaves the three functions, so reverse mode works to any order.


def _forward(name: str, window: Window, known: Arrays) -> tuple[Array, Arrays]:
    # The barrier keeps XLA from computing the result twice where it is used twice.
    return lax.optimization_barrier(derivative(name, window, known)), known


def _pullback(name: str, window: Window, known: Arrays, cotangent: Array) -> tuple[Arrays]:
    arrays = known | {name: cotangent}

    def gradient(name):
        return derivative(name, window, {n: x for n, x in arrays.items() if n != name})

    return ({name: gradient(name) for name in known},)


derivative.defvjp(_forward, _pullback)


def varying_alike(x: Array, w: Array) -> tuple[Array, Array]:
    """Returns both arrays with the type of their sum, for use inside ``jax.shard_map``.

    There images vary over devices and kernels do not, so a kernel's gradient is a sum over
    devices. JAX inserts the sum where it differentiates this addition of zeros, which XLA drops.
    ``_pullback`` cannot insert it, because it does not know the names of the mesh's axes.
    """
    zero = jnp.zeros_like(x, shape=(1,) * 4) + jnp.zeros_like(w, shape=(1,) * 4)
    return x + zero, w + zero


def _native(name: str, window: Window, known: Arrays) -> Array:
    """Returns a derivative as XLA's own convolution (dT/dy) or a linear transpose of it."""
    if name == "y":
        x, w = known["x"], known["w"]
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, w, window.strides, window.padding, dimension_numbers=layout
        )
    y = known["y"]
    if name == "x":
        shape = (y.shape[0], *window.image, known["w"].shape[2])
    else:
        shape = (*window.kernel, known["x"].shape[3], y.shape[3])
    transpose = jax.linear_transpose(
        lambda unknown: _native("y", window, known | {name: unknown}),
        jnp.zeros_like(y, shape=shape),
    )
    return transpose(y)[0]
