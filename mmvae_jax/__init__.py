"""MMVAE, the variational mixture-of-experts autoencoder, in JAX and Flax NNX."""

from mmvae_jax.batch import Batch
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.evidence import (
    Diagnostics,
    compute_cond_nll,
    compute_cond_nll_ratio,
    compute_joint_nll,
    compute_joint_nll_paper,
    compute_marginal_nll,
)
from mmvae_jax.inference import (
    decode,
    encode,
    generate,
    generate_from_prior,
    predict,
    reconstruct,
)
from mmvae_jax.model import MMVAE
from mmvae_jax.objective import loss, value_and_grad
from mmvae_jax.training import TrainState, create_train_state, eval_step, train_step

__all__ = [
    "MMVAE",
    "Batch",
    "Diagnostics",
    "MMVAEConfig",
    "TrainState",
    "compute_cond_nll",
    "compute_cond_nll_ratio",
    "compute_joint_nll",
    "compute_joint_nll_paper",
    "compute_marginal_nll",
    "create_train_state",
    "decode",
    "encode",
    "eval_step",
    "generate",
    "generate_from_prior",
    "loss",
    "predict",
    "reconstruct",
    "train_step",
    "value_and_grad",
]
