"""MMVAE, the variational mixture-of-experts autoencoder, in JAX and Flax NNX.

Everything is a pure function: a model is a pytree, randomness is a key, and every computation works
under ``jax.jit``, ``jax.vmap`` and ``jax.grad``. Shapes are written with the
letters b (example), m (modality that is encoded), j (modality that is decoded), k (particle) and d
(latent); images are channels-last; likelihoods are in nats.

The examples in this reference continue from these lines, with a ``folder`` to write to:

>>> import jax, optax
>>> import jax.numpy as jnp
>>> import numpy as np
>>> from flax import nnx
>>> import mmvae_jax as mm
>>> config = mm.MMVAEConfig(input_dims={"sound": (4,), "text": (2, 3)},
...                         decoders_dist={"text": "categorical"}, latent_dim=2, K=3)
>>> model = mm.MMVAE(config, rngs=nnx.Rngs(0))
>>> data = {"sound": np.zeros((5, 4), np.float32), "text": np.zeros((5, 2), np.int32)}
>>> batch = mm.Batch(data)
>>> tx = optax.adam(1e-3)
>>> arrays = mm.MultimodalArrays(data)
"""

import importlib
from typing import Any

from mmvae_jax import data, interop, networks
from mmvae_jax.batch import Batch, MultimodalArrays
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.data.incomplete import (
    incomplete_batch,
    mask_nan,
    missing_at_random,
    missing_by_label,
)
from mmvae_jax.evidence.annealed import (
    AnnealedDiagnostics,
    NllBounds,
    bound_joint_nll_ais,
    compute_joint_nll_ais,
)
from mmvae_jax.evidence.likelihood_estimates import (
    Diagnostics,
    compute_cond_nll,
    compute_cond_nll_ratio,
    compute_joint_nll,
    compute_joint_nll_paper,
    compute_marginal_nll,
)
from mmvae_jax.inference import (
    ImportanceWeighting,
    Latents,
    decode,
    encode,
    expected_values,
    generate,
    generate_from_prior,
    join_latents,
    predict,
    predict_clusters,
    reconstruct,
    split_latents,
)
from mmvae_jax.likelihood_params import Learned
from mmvae_jax.likelihood_settings import MixedLikelihood
from mmvae_jax.maths.backward import Backward
from mmvae_jax.maths.distributions import Family
from mmvae_jax.maths.likelihoods import Likelihood
from mmvae_jax.model import MMVAE
from mmvae_jax.objective import loss, value_and_grad
from mmvae_jax.overrides import Overrides
from mmvae_jax.samplers import LatentSampler, fit_flow, fit_gaussian_mixture
from mmvae_jax.saving.export import export
from mmvae_jax.saving.exported import Exported, load_exported
from mmvae_jax.saving.pretrained import from_pretrained, push_to_hub, save_pretrained
from mmvae_jax.tables.reading import read_tables
from mmvae_jax.tables.tables import Tables
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

__version__ = "0.2.0"

__all__ = [
    "MMVAE",
    "AnnealedDiagnostics",
    "Backward",
    "Batch",
    "Checkpointing",
    "Diagnostics",
    "DivergenceWarning",
    "Evaluation",
    "Exported",
    "Family",
    "FitResult",
    "ImportanceWeighting",
    "LatentSampler",
    "Latents",
    "Learned",
    "Likelihood",
    "LostProcessError",
    "MMVAEConfig",
    "MixedLikelihood",
    "MultimodalArrays",
    "NllBounds",
    "NonFiniteError",
    "Overrides",
    "Preempted",
    "Tables",
    "TrainState",
    "bound_joint_nll_ais",
    "compute_cond_nll",
    "compute_cond_nll_ratio",
    "compute_joint_nll",
    "compute_joint_nll_ais",
    "compute_joint_nll_paper",
    "compute_marginal_nll",
    "create_train_state",
    "data",
    "decode",
    "encode",
    "eval_step",
    "evaluate",
    "expected_values",
    "export",
    "fit",
    "fit_flow",
    "fit_gaussian_mixture",
    "from_pretrained",
    "generate",
    "generate_from_prior",
    "incomplete_batch",
    "interop",
    "join_latents",
    "load",
    "load_exported",
    "loss",
    "make_mesh",
    "make_optimizer",
    "mask_nan",
    "missing_at_random",
    "missing_by_label",
    "networks",
    "predict",
    "predict_clusters",
    "push_to_hub",
    "read_tables",
    "reconstruct",
    "save_pretrained",
    "shard_batch",
    "split_latents",
    "train_step",
    "train_steps",
    "value_and_grad",
]


def __getattr__(name: str) -> Any:
    """Imports these on first use, so that importing ``mm`` stays fast and needs no scikit-learn."""
    if name in ("loggers", "metrics", "plots"):
        return importlib.import_module(f"{__name__}.{name}")
    if name == "MMVAEEstimator":
        return importlib.import_module(f"{__name__}.estimator").MMVAEEstimator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
