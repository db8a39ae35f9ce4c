"""The cases' models in JAX."""

import jax
import jax.numpy as jnp
from flax import nnx

import mmvae_jax as mm
from experiments.benchmark.cases import LIKELIHOOD, LOSS, MODEL, SCALE, Case, ImageSpec
from experiments.benchmark.config import BenchmarkConfig
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.networks.polymnist import PolyMNISTDecoder, PolyMNISTEncoder
from mmvae_jax.networks.svhn import SVHNDecoder, SVHNEncoder

IMAGE_NETWORKS = {
    "svhn": (SVHNEncoder, SVHNDecoder),
    "polymnist": (PolyMNISTEncoder, PolyMNISTDecoder),
}
#: JAX's names of precisions of float32 products.
PRECISIONS = {"tf32": "tensorfloat32", "float32": "highest"}


def use_device(config: BenchmarkConfig) -> None:
    """Sets JAX's platform and the precision of its products."""
    if config.is_on_cpu:
        jax.config.update("jax_platforms", "cpu")
    if config.precision is not None:
        jax.config.update("jax_default_matmul_precision", PRECISIONS[config.precision])


def build_model(
    case: Case,
    K: int,
    seed: int,
    scale: float | None = None,
    dtype: str = "float32",
    loss: str = LOSS,
) -> mm.MMVAE:
    """Returns the case's model with its initial parameters.

    Args:
      case: modalities and sizes.
      K: particles per expert.
      seed: seed of the parameters.
      scale: scale of the likelihoods, by default ``SCALE``.
      dtype: type of the networks' computation.
      loss: bound and estimator of the gradient.
    """
    names = list(case.modalities)
    config = mm.MMVAEConfig(
        input_dims={name: spec.dim for name, spec in case.modalities.items()},
        decoders_dist=dict.fromkeys(names, LIKELIHOOD),
        decoder_dist_params={name: {"scale": scale or SCALE} for name in names},
        latent_dim=case.latent_dim,
        modalities_specific_dim=case.private,
        K=K,
        loss=loss,
        **MODEL,
    )
    rngs = nnx.Rngs(seed)
    encoders, decoders = {}, {}
    for name, spec in case.modalities.items():
        encoders[name], decoders[name] = _networks(spec, case.network_dim, jnp.dtype(dtype), rngs)
    return mm.MMVAE(config, encoders, decoders, rngs=rngs)


def _networks(
    spec: ImageSpec, latent_dim: int, dtype: jnp.dtype, rngs: nnx.Rngs
) -> tuple[nnx.Module, nnx.Module]:
    """Encoder and decoder of a modality."""
    if spec.networks == "mlp":
        encoder = MLPEncoder(spec.dim, latent_dim, dtype=dtype, rngs=rngs)
        return encoder, MLPDecoder(latent_dim, spec.dim, sigmoid=True, dtype=dtype, rngs=rngs)
    encoder, decoder = IMAGE_NETWORKS[spec.networks]
    return encoder(latent_dim, dtype=dtype, rngs=rngs), decoder(latent_dim, dtype=dtype, rngs=rngs)
