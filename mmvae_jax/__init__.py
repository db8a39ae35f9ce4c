"""MMVAE, the variational mixture-of-experts autoencoder, in JAX and Flax NNX."""

from mmvae_jax.backward import Backward
from mmvae_jax.batch import Batch
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.data.arrays import MultimodalArrays
from mmvae_jax.data.incomplete import incomplete_batch, missing_at_random, missing_by_label
from mmvae_jax.evaluation import evaluate
from mmvae_jax.evidence import (
    Diagnostics,
    compute_cond_nll,
    compute_cond_nll_ratio,
    compute_joint_nll,
    compute_joint_nll_paper,
    compute_marginal_nll,
)
from mmvae_jax.export import export
from mmvae_jax.exported import Exported, load_exported
from mmvae_jax.inference import (
    decode,
    encode,
    generate,
    generate_from_prior,
    predict,
    reconstruct,
)
from mmvae_jax.loading import load
from mmvae_jax.loop import FitResult, fit
from mmvae_jax.model import MMVAE
from mmvae_jax.objective import loss, value_and_grad
from mmvae_jax.optimizer import make_optimizer
from mmvae_jax.preemption import LostProcessError, Preempted
from mmvae_jax.sharding import make_mesh, shard_batch
from mmvae_jax.training import TrainState, create_train_state, eval_step, train_step, train_steps
from mmvae_jax.watch import NonFiniteError

__all__ = [
    "MMVAE",
    "Backward",
    "Batch",
    "Diagnostics",
    "Exported",
    "FitResult",
    "LostProcessError",
    "MMVAEConfig",
    "MultimodalArrays",
    "NonFiniteError",
    "Preempted",
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
    "evaluate",
    "export",
    "fit",
    "generate",
    "generate_from_prior",
    "incomplete_batch",
    "load",
    "load_exported",
    "loss",
    "make_mesh",
    "make_optimizer",
    "missing_at_random",
    "missing_by_label",
    "predict",
    "reconstruct",
    "shard_batch",
    "train_step",
    "train_steps",
    "value_and_grad",
]
