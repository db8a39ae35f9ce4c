"""The cases' models in JAX."""

import jax
from flax import nnx

import mmvae_jax as mm
from experiments.benchmark.cases import LIKELIHOOD, MODEL, SCALE, Case, ImageSpec
from experiments.benchmark.config import BenchmarkConfig
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.networks.polymnist import PolyMNISTDecoder, PolyMNISTEncoder
from mmvae_jax.networks.svhn import SVHNDecoder, SVHNEncoder


def use_platform(config: BenchmarkConfig) -> None:
    """Keeps JAX on CPU, as MultiVae's process is, in a contest with it."""
    if config.against == "multivae":
        jax.config.update("jax_platforms", "cpu")


def build_model(case: Case, K: int, seed: int, scale: float | None = None) -> mm.MMVAE:
    """Returns the case's model with its initial parameters."""
    names = list(case.modalities)
    config = mm.MMVAEConfig(
        input_dims={name: spec.dim for name, spec in case.modalities.items()},
        decoders_dist=dict.fromkeys(names, LIKELIHOOD),
        decoder_dist_params={name: {"scale": scale or SCALE} for name in names},
        latent_dim=case.latent_dim,
        K=K,
        **MODEL,
    )
    rngs = nnx.Rngs(seed)
    encoders, decoders = {}, {}
    for name, spec in case.modalities.items():
        encoders[name], decoders[name] = _networks(spec, case.latent_dim, rngs)
    return mm.MMVAE(config, encoders, decoders, rngs=rngs)


def _networks(spec: ImageSpec, latent_dim: int, rngs: nnx.Rngs) -> tuple[nnx.Module, nnx.Module]:
    """Encoder and decoder of a modality."""
    if spec.networks == "mlp":
        encoder = MLPEncoder(spec.dim, latent_dim, rngs=rngs)
        return encoder, MLPDecoder(latent_dim, spec.dim, sigmoid=True, rngs=rngs)
    if spec.networks == "svhn":
        return SVHNEncoder(latent_dim, rngs=rngs), SVHNDecoder(latent_dim, rngs=rngs)
    return PolyMNISTEncoder(latent_dim, rngs=rngs), PolyMNISTDecoder(latent_dim, rngs=rngs)
