"""Models that other libraries trained."""

from mmvae_jax.interop.multivae import load_multivae

__all__ = ["load_multivae"]
