"""Two-dimensional convolutions that run as matrix products on CPU.

On CPU, XLA's convolutions take about 20 times as long as matrix products of the same cost. XLA
also aborts the process on the gradients of some convolutions with unequal strides. ``Conv`` and
``ConvTranspose`` hold the parameters of ``nnx.Conv`` and ``nnx.ConvTranspose`` and compute the same
values. A program for CPU contains matrix products and shifted additions in their place; a program
for any other platform contains XLA's own convolutions.

``layers`` holds the two NNX modules, ``trilinear`` the arithmetic and its derivative rule.
Reverse-mode differentiation works to any order. Forward mode (``jax.jvp``, ``jax.jacfwd``) is not
supported, because the derivative rule is a ``jax.custom_vjp``.
"""

from mmvae_jax.networks.cpu_conv.layers import Conv, ConvTranspose

__all__ = ["Conv", "ConvTranspose"]
