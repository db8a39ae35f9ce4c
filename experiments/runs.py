"""A run and its folder: opened, trained step by step, stopped and taken up again.

What it takes to go on is in ``checkpoints/``, the metrics of every step are in ``history.csv``, and
``metrics.json`` is written last: where it is, the run is finished.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

import mmvae_jax as mm
from experiments.history import History
from experiments.versions import version
from mmvae_jax.checkpoint import Checkpoints
from mmvae_jax.data.arrays import MultimodalArrays, batches

METRICS_FILE = "metrics.json"
#: Steps between two looks at the metrics: each look waits for the device.
FETCH_EVERY = 50


def open_run(out: Path, settings: Mapping[str, Any], *, resume: bool) -> Checkpoints:
    """Returns the checkpoints of the run in `out`; nothing is written yet.

    Args:
        out: folder of the run: new or empty, or, to go on, that of a run with these settings.
        settings: all that the outcome depends on.
        resume: whether to go on.

    Raises:
        ValueError: if `out` is not such a folder, saying what to do about it.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"out is {out}, which is a file: choose a folder")
    if not resume and out.exists() and any(out.iterdir()):
        raise ValueError(
            f"out is {out}, which is not empty, and nothing in it may be overwritten: add --resume "
            "to go on with the run in it, or choose another --out"
        )
    checkpoints = Checkpoints(out / "checkpoints", config=settings)
    if resume and not checkpoints.steps:
        raise ValueError(
            f"resume is True, but {out} holds no checkpoint to go on from: check --out, or leave "
            "--resume out and choose a new folder"
        )
    return checkpoints


def train(
    state: mm.TrainState,
    dataset: MultimodalArrays,
    checkpoints: Checkpoints,
    history: History,
    *,
    batch_size: int,
    num_steps: int,
    save_every: int,
    seed: int,
) -> mm.TrainState:
    """Trains up to step `num_steps`, from the newest checkpoint if there is one.

    Every metric reaches `history` before the checkpoint of its step is written, so that a run
    stopped anywhere can go on.

    Raises:
        FloatingPointError: if loss or gradient are no longer finite; no checkpoint holds that.
    """
    is_new = not checkpoints.steps
    if not is_new:
        state = checkpoints.restore(state)
    start = int(state.step)
    steps = batches(dataset, batch_size, seed=seed, num_steps=num_steps, start=start)
    history.start(start)
    if is_new:
        checkpoints.save(state)  # A run stopped before its first checkpoint can go on, too.
    pending = []
    with tqdm(initial=start, total=num_steps, desc="train", unit="step") as progress:
        for step, batch in enumerate(steps, start + 1):
            state, metrics = mm.train_step(state, mm.Batch(data=batch.data, mask=batch.mask))
            pending.append(metrics)
            is_saved = step % save_every == 0 or step == num_steps
            if is_saved or step % FETCH_EVERY == 0:
                history.append(jax.device_get(pending))
                progress.update(len(pending))
                progress.set_postfix(loss=f"{metrics['loss']:.1f}")
                _check_finite(metrics, step)
                pending = []
            if is_saved:
                checkpoints.save(state)
    return state


def keep_compiled() -> None:
    """Lets later runs take compiled programs from a folder on disk, where this one leaves them.

    The folder is that of JAX's own setting, JAX_COMPILATION_CACHE_DIR, and without it one under
    the user's cache folder. Programs that compile within half a second are not worth a file.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(caches / "mmvae_jax" / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@contextlib.contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Adds the wall-clock seconds that the block took."""
    start = time.perf_counter()
    yield
    seconds[phase] = round(time.perf_counter() - start, 2)


def provenance() -> dict[str, Any]:
    """Returns the versions and the device that results were computed with."""
    return {
        "versions": {name: version(name) for name in ("mmvae_jax", "jax", "flax")},
        "device": jax.devices()[0].device_kind,
    }


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Writes all of the file or nothing."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(file)


def _check_finite(metrics: Mapping[str, jax.Array], step: int) -> None:
    # With a finite loss and gradient, the parameters after this step are finite as well.
    for name in ("loss", "grad_norm"):
        if not math.isfinite(metrics[name]):
            raise FloatingPointError(
                f"{name} is {metrics[name]} at step {step}: lower learning_rate; history.csv "
                "shows how it came to this"
            )
