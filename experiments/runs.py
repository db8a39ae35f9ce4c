"""A run and its folder.

What it takes to go on is in ``checkpoints/``, metrics of the training steps are in
``history.jsonl``, and ``metrics.json`` is written last: where it is, the run is finished.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
from jax.experimental import multihost_utils

import mmvae_jax as mm
from experiments.versions import version
from mmvae_jax.saving.whole_files import write_whole
from mmvae_jax.training.checkpoint import Checkpoints

CHECKPOINTS = "checkpoints"
HISTORY_FILE = "history.jsonl"
METRICS_FILE = "metrics.json"
#: Seconds without a sign of life after which a process of a run counts as gone.
LOST_AFTER = 10


def check_folder(out: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Look for what is wrong with a run's folder; nothing is written.

    Args:
      out: folder of the run: new or empty, or, to go on, that of a run with this config.
      config: of ``mmvae_jax.training.setup.run_config``.
      resume: whether to go on.

    Raises:
      ValueError: if ``out`` is not such a folder, saying what to do about it.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"out is {out}, which is a file: choose a folder")
    if not resume and out.exists() and any(out.iterdir()):
        raise ValueError(
            f"out is {out}, which is not empty, and nothing in it may be overwritten: add --resume "
            "to go on with the run in it, or choose another --out"
        )
    checkpoints = Checkpoints(out / CHECKPOINTS, config=config)
    if resume and not checkpoints.steps:
        raise ValueError(
            f"resume is True, but {out} holds no checkpoint to go on from: check --out, or leave "
            "--resume out and choose a new folder"
        )
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("all processes have looked at the folder")


def connect(coordinator: str | None, num_processes: int, process_id: int) -> None:
    """Joins the other processes of the run, if there are any."""
    if num_processes > 1:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=LOST_AFTER,
            shutdown_timeout_seconds=LOST_AFTER,
        )


def leave(error: mm.LostProcessError) -> NoReturn:
    """Ends the process with the error's message, without JAX's wait for those that are gone."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(1)


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
    write_whole(file, json.dumps(content, indent=2) + "\n")
