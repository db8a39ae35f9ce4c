"""A training run, from its first state to its last checkpoint."""

from mmvae_jax.training.checkpoint import Checkpoints
from mmvae_jax.training.divergence import DivergenceWarning
from mmvae_jax.training.evaluation import evaluate
from mmvae_jax.training.fit_options import Checkpointing, Evaluation
from mmvae_jax.training.loading import load
from mmvae_jax.training.loop import FitResult, fit
from mmvae_jax.training.mesh import make_mesh, shard_batch
from mmvae_jax.training.monitor import NonFiniteError
from mmvae_jax.training.optimizer import make_optimizer
from mmvae_jax.training.preemption import LostProcessError, Preempted
from mmvae_jax.training.steps import eval_step, train_step, train_steps
from mmvae_jax.training.train_state import TrainState, create_train_state

__all__ = [
    "Checkpointing",
    "Checkpoints",
    "DivergenceWarning",
    "Evaluation",
    "FitResult",
    "LostProcessError",
    "NonFiniteError",
    "Preempted",
    "TrainState",
    "create_train_state",
    "eval_step",
    "evaluate",
    "fit",
    "load",
    "make_mesh",
    "make_optimizer",
    "shard_batch",
    "train_step",
    "train_steps",
]
