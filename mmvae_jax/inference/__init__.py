"""Latents, predictions and generated data of a trained model."""

from mmvae_jax.inference.decoding import (
    decode,
    expected_values,
    generate,
    generate_from_prior,
    predict,
    reconstruct,
)
from mmvae_jax.inference.encoding import encode
from mmvae_jax.inference.weighting import ImportanceWeighting

__all__ = [
    "ImportanceWeighting",
    "decode",
    "encode",
    "expected_values",
    "generate",
    "generate_from_prior",
    "predict",
    "reconstruct",
]
