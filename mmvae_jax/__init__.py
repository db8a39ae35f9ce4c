"""MMVAE, the variational mixture-of-experts autoencoder for multi-modal data, in JAX and Flax NNX."""

from mmvae_jax.batch import Batch
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.model import MMVAE
from mmvae_jax.objective import loss, value_and_grad
from mmvae_jax.training import TrainState, create_train_state, eval_step, train_step

__all__ = [
    "MMVAE",
    "Batch",
    "MMVAEConfig",
    "TrainState",
    "create_train_state",
    "eval_step",
    "loss",
    "train_step",
    "value_and_grad",
]
