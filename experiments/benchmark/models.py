"""The cases' models."""

from collections.abc import Callable

from flax import nnx

import mmvae_jax as mm
from experiments.benchmark.cases import LIKELIHOOD, MODEL, SCALE, Case, Modality
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.networks.polymnist import PolyMNISTDecoder, PolyMNISTEncoder
from mmvae_jax.networks.svhn import SVHNDecoder, SVHNEncoder

Networks = tuple[nnx.Module, nnx.Module]


def mlp(dim: tuple[int, ...], latent_dim: int, rngs: nnx.Rngs) -> Networks:
    """The default networks."""
    return (
        MLPEncoder(dim, latent_dim, rngs=rngs),
        MLPDecoder(latent_dim, dim, sigmoid=True, rngs=rngs),
    )


def svhn(dim: tuple[int, ...], latent_dim: int, rngs: nnx.Rngs) -> Networks:
    """Convolutions for 32 x 32 x 3."""
    return SVHNEncoder(latent_dim, rngs=rngs), SVHNDecoder(latent_dim, rngs=rngs)


def polymnist(dim: tuple[int, ...], latent_dim: int, rngs: nnx.Rngs) -> Networks:
    """Convolutions for 28 x 28 x 3."""
    return PolyMNISTEncoder(latent_dim, rngs=rngs), PolyMNISTDecoder(latent_dim, rngs=rngs)


NETWORKS: dict[str, Callable[..., Networks]] = {"mlp": mlp, "svhn": svhn, "polymnist": polymnist}


def build_model(case: Case, K: int, seed: int) -> mm.MMVAE:
    """The case's model with its initial parameters."""
    names = list(case.modalities)
    config = mm.MMVAEConfig(
        input_dims={name: modality.dim for name, modality in case.modalities.items()},
        decoders_dist=dict.fromkeys(names, LIKELIHOOD),
        decoder_dist_params={name: {"scale": SCALE} for name in names},
        latent_dim=case.latent_dim,
        K=K,
        **MODEL,
    )
    rngs = nnx.Rngs(seed)

    def make(modality: Modality) -> Networks:
        return NETWORKS[modality.networks](modality.dim, case.latent_dim, rngs)

    networks = {name: make(modality) for name, modality in case.modalities.items()}
    encoders = {name: encoder for name, (encoder, _) in networks.items()}
    decoders = {name: decoder for name, (_, decoder) in networks.items()}
    return mm.MMVAE(config, encoders, decoders, rngs=rngs)
