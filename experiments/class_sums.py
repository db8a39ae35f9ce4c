"""Sums of the estimated probabilities of all classes, which are 1 for the exact ones.

    python -m experiments.class_sums --out runs/class_sums

The model has scikit-learn's digits in two halves, with their class as the third modality. Its
training makes posteriors narrow, so that particles of the experts miss a part of p(class).
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import mmvae_jax as mm
from experiments.benchmark.report import align
from experiments.command_line import run_command
from experiments.rows import Rows
from mmvae_jax.checks import check_count, check_share

NUM_CLASSES = 10
HALVES = ("top", "bottom")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassSumsConfig:
    """Estimate the probabilities of all digits by share of the prior, and add them up."""

    shares: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.5)
    """Shares of the particles that come from the prior."""
    K: int = 1000
    """Number of particles per estimate."""
    num_keys: int = 40
    """Number of sums for each share."""
    num_steps: int = 400
    """Number of training steps."""
    out: Path = Path("runs/class_sums")
    """Folder of the results, new or of an earlier call whose rows are kept."""

    def __post_init__(self) -> None:
        for share in self.shares:
            check_share("shares", share)
        for field in ("K", "num_keys", "num_steps"):
            check_count(field, getattr(self, field))


def main(config: ClassSumsConfig) -> list[dict[str, Any]]:
    """Computes the rows that ``out`` lacks, prints a table, and returns all rows."""
    rows = Rows(config.out, config)
    sizes = {name: getattr(config, name) for name in ("K", "num_keys", "num_steps")}
    asked = [{"share": share, **sizes} for share in config.shares]
    missing = [each for each in asked if not rows.has(each)]
    if missing:
        model = train(config.num_steps)
        for each in missing:
            rows.add({**each, **measure(model, each["share"], config)})
    table: list[tuple[str, ...]] = [("share", "sum", "standard error", "ess", "k-hat")]
    for row in rows.all:
        values = (row[name] for name in ("sum", "standard_error", "ess", "pareto_k"))
        table.append((f"{row['share']:g}", *(f"{value:.3f}" for value in values)))
    print(align(table))
    return rows.all


def load() -> dict[str, np.ndarray]:
    """Returns the two halves of every digit, standardised, and its class."""
    found: Any = load_digits()
    x = (found.data - found.data.mean()) / found.data.std()
    halves = np.split(x.astype(np.float32), len(HALVES), axis=1)
    labels = np.eye(NUM_CLASSES, dtype=np.float32)[found.target]
    return {**dict(zip(HALVES, halves, strict=True)), "digit": labels}


def train(num_steps: int) -> mm.MMVAE:
    """Returns a model after steps of 100 examples, drawn without replacement in every epoch."""
    data = load()
    config = mm.MMVAEConfig(
        input_dims={name: x.shape[1:] for name, x in data.items()},
        decoders_dist={**dict.fromkeys(HALVES, "laplace"), "digit": "categorical"},
        decoder_dist_params={name: {"scale": 0.5} for name in HALVES},
        latent_dim=8,
        K=10,
    )
    model = mm.MMVAE(config, rngs=nnx.Rngs(0))
    state = mm.create_train_state(model, optax.adam(1e-3), key=jax.random.key(0))
    settings = {"num_steps": num_steps, "batch_size": 100, "progress": False}
    return mm.fit(state, mm.MultimodalArrays(data), **settings).state.model()


def measure(model: mm.MMVAE, share: float, config: ClassSumsConfig) -> dict[str, float]:
    """Returns the mean sum over keys with its standard error, and the diagnostics of the weights.

    Particles come from the expert of the class itself, and from the prior.
    """
    batch = mm.Batch({"digit": np.eye(NUM_CLASSES, dtype=np.float32)})
    sums, found = [], []
    for key in jax.random.split(jax.random.key(1), config.num_keys):
        nll, diagnostics = mm.compute_marginal_nll(
            model,
            batch,
            key,
            modality="digit",
            K=config.K,
            prior_share=share,
            return_diagnostics=True,
        )
        sums.append(float(np.exp(-np.asarray(nll, np.float64)).sum()))
        found.append(diagnostics)
    spread = float(np.std(sums, ddof=1))
    return {
        "sum": float(np.mean(sums)),
        "standard_error": spread / len(sums) ** 0.5,
        "spread": spread,
        "ess": float(np.mean([each.ess for each in found])),
        "pareto_k": float(np.median([each.pareto_k for each in found])),
    }


if __name__ == "__main__":
    run_command(main, ClassSumsConfig, "experiments.class_sums")
