"""Latents, predictions and generated data of a trained model."""

from mmvae_jax.inference.clustering import predict_clusters
from mmvae_jax.inference.decoding import (
    decode,
    expected_values,
    generate,
    generate_from_prior,
    predict,
    reconstruct,
)
from mmvae_jax.inference.encoding import encode
from mmvae_jax.inference.latent_parts import Latents, join_latents, split_latents
from mmvae_jax.inference.weighting import ImportanceWeighting

__all__ = [
    "ImportanceWeighting",
    "Latents",
    "decode",
    "encode",
    "expected_values",
    "generate",
    "generate_from_prior",
    "join_latents",
    "predict",
    "predict_clusters",
    "reconstruct",
    "split_latents",
]
