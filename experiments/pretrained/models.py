"""Models of photographs and words, whose encoders of photographs differ."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, PyTree

import mmvae_jax as mm
from experiments.pretrained.efficientnet_lite import NUM_FEATURES
from experiments.pretrained.photographs import SIDE, WORDS
from mmvae_jax.networks import ConvDecoder, ConvEncoder
from mmvae_jax.networks.mlp import EncoderOutput

#: Uses of a frozen trunk in training, in the order of their cost.
Use = Literal["partition", "stop_gradient", "features"]
DIM = (SIDE, SIDE, 3)
#: Scale of the photographs' Laplace likelihood.
SCALE = 0.75


class PhotoFeatures(NamedTuple):
    """Photographs with the features of a frozen trunk.

    Attributes:
      pixels: intensities from 0 to 1, ``[b, h, w, 3]``.
      features: features of the pixels, ``[b, c]``.
    """

    pixels: Any
    features: Any


class Heads(nnx.Module):
    """Layer normalisation, a dense layer, and linear layers for loc and log_var.

    Args:
      latent_dim: size d of the latent.
      rngs: source of the initial parameters.
    """

    def __init__(self, latent_dim: int, *, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(NUM_FEATURES, rngs=rngs)
        self.dense = nnx.Linear(NUM_FEATURES, 256, rngs=rngs)
        self.loc, self.log_var = (nnx.Linear(256, latent_dim, rngs=rngs) for _ in range(2))

    def __call__(self, features: Float[Array, "n c"]) -> EncoderOutput:
        """Returns loc and log_var."""
        h = jax.nn.relu(self.dense(self.norm(features)))
        return self.loc(h), self.log_var(h)


class TrunkEncoder(nnx.Module):
    """Trained heads on the features of a frozen trunk.

    Args:
      trunk: network from photographs to features.
      heads: network from features to loc and log_var.
      stop_gradient: True to spare the backward pass through the trunk.
    """

    def __init__(self, trunk: nnx.Module, heads: Heads, *, stop_gradient: bool):
        self.trunk, self.heads, self.stop_gradient = trunk, heads, stop_gradient

    def __call__(self, x: Float[Array, "n h w 3"]) -> EncoderOutput:
        """Returns loc and log_var of photographs."""
        features = self.trunk(x)
        return self.heads(jax.lax.stop_gradient(features) if self.stop_gradient else features)


class FeatureEncoder(nnx.Module):
    """Trained heads on features that were computed before."""

    def __init__(self, heads: Heads):
        self.heads = heads

    def __call__(self, x: PhotoFeatures) -> EncoderOutput:
        """Returns loc and log_var from the features; the pixels are only decoded."""
        return self.heads(x.features)


def make_model(
    seed: int, trunk: nnx.Module | None, use: Use, *, latent_dim: int, K: int
) -> mm.MMVAE:
    """Returns a new model.

    Args:
      seed: seed of the initial parameters.
      trunk: network of the photographs' encoder; None is ``ConvEncoder``, trained from scratch.
      use: use of the trunk.
      latent_dim: size d of the latent.
      K: number of particles of each modality's posterior.
    """
    rngs, of_encoder = map(nnx.Rngs, jax.random.split(jax.random.key(seed)))
    if trunk is None:
        encoder = ConvEncoder(DIM, latent_dim, features=(32, 64, 128), rngs=of_encoder)
    elif use == "features":
        encoder = FeatureEncoder(Heads(latent_dim, rngs=of_encoder))
    else:
        heads, stops = Heads(latent_dim, rngs=of_encoder), use == "stop_gradient"
        encoder = TrunkEncoder(trunk, heads, stop_gradient=stops)
    has_features = trunk is not None and use == "features"
    config = mm.MMVAEConfig(
        input_dims={"photo": DIM, "word": (len(WORDS),)},
        decoders_dist={
            "photo": mm.Likelihood(photo_log_prob) if has_features else "laplace",
            "word": "categorical",
        },
        decoder_dist_params={"photo": {"scale": SCALE}},
        uses_likelihood_rescaling=True,
        latent_dim=latent_dim,
        K=K,
        loss="adaptive_dreg_looser",
    )
    decoder = ConvDecoder(latent_dim, DIM, features=(32, 16, 16), sigmoid=True, rngs=rngs)
    return mm.MMVAE(config, {"photo": encoder}, {"photo": decoder}, rngs=rngs)


def photo_log_prob(
    decoded: Float[Array, "h w 3"], x: PhotoFeatures, scale: float
) -> Float[Array, ""]:
    """Returns the Laplace log density of the pixels."""
    return jax.scipy.stats.laplace.logpdf(x.pixels, decoded, scale).sum()


def freezing(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns an optimizer that leaves every trunk as it is, and keeps no moments of it."""

    def labels(params: PyTree) -> PyTree:
        return jax.tree.map_with_path(
            lambda path, _: "frozen" if "trunk" in jax.tree_util.keystr(path) else "trained",
            params,
        )

    return optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, labels)


def features_of(
    trunk: nnx.Module, pixels: Float[np.ndarray, "b h w 3"], batch_size: int = 64
) -> Float[np.ndarray, "b c"]:
    """Returns the features of all photographs, computed in batches."""
    graphdef, params = nnx.split(trunk)
    apply: Callable[..., Array] = jax.jit(lambda params, x: nnx.merge(graphdef, params)(x))
    num = -len(pixels) % batch_size  # one compiled program serves all batches
    padded = np.concatenate([pixels, np.zeros((num, *pixels.shape[1:]), pixels.dtype)])
    batches = np.split(padded, len(padded) // batch_size)
    return np.concatenate([apply(params, jnp.asarray(x)) for x in batches])[: len(pixels)]


def with_features(examples: mm.MultimodalArrays, trunk: nnx.Module) -> mm.MultimodalArrays:
    """Returns examples whose photographs have the features of the trunk."""
    pixels = np.asarray(examples.data["photo"], np.float32) / 255
    photo = PhotoFeatures(pixels, features_of(trunk, pixels))
    return examples._replace(data={**examples.data, "photo": photo})
