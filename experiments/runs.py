"""Folders of runs and the process that computes them.

A run keeps its checkpoints in ``checkpoints/`` and the metrics of training steps in
``history.jsonl``. It writes ``metrics.json`` last: a folder with this file is finished.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

import mmvae_jax as mm
from experiments.versions import version
from mmvae_jax.saving.files import write_text
from mmvae_jax.training.checkpoint import Checkpoints

CHECKPOINTS = "checkpoints"
HISTORY_FILE = "history.jsonl"
METRICS_FILE = "metrics.json"
#: Seconds without a heartbeat after which a process of a run counts as lost.
LOST_AFTER = 10


def check_new_folder(out: Path, *, resumable: bool = False) -> None:
    """Checks that a folder is new or empty.

    Args:
      out: folder of the results.
      resumable: if True, the error message offers ``--resume``.

    Raises:
      ValueError: if ``out`` is a file or holds anything.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"out is {out}, which is a file: choose a folder")
    if out.exists() and any(out.iterdir()):
        fix = "add --resume to continue its run, or choose" if resumable else "choose"
        raise ValueError(f"out is {out}, which is not empty: {fix} another --out")


def check_run_folder(out: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Checks the folder of a run without writing anything.

    Args:
      out: folder of the run: new or empty, or to resume the folder of a run with this config.
      config: metadata of the run, from ``mmvae_jax.training.run_settings.settings_of_run``.
      resume: if True, the run continues from its newest checkpoint.

    Raises:
      ValueError: if ``out`` does not fit.
    """
    if not resume:
        check_new_folder(out, resumable=True)
    checkpoints = Checkpoints(out / CHECKPOINTS, config=config)
    if resume and not checkpoints.steps:
        raise ValueError(
            f"resume is True, but {out} holds no checkpoint: check --out, or leave out --resume "
            "and choose a new folder"
        )
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("folder checked by all processes")


@contextlib.contextmanager
def process(
    coordinator: str | None = None, num_processes: int = 1, process_id: int = 0
) -> Iterator[None]:
    """Sets up JAX for the block, and prints why a run in it stopped early.

    Args:
      coordinator: address and port of process 0.
      num_processes: number of processes of the run.
      process_id: number of this process, from 0.
    """
    use_compilation_cache()
    if num_processes > 1:
        timeouts = ("heartbeat_timeout_seconds", "shutdown_timeout_seconds")
        jax.distributed.initialize(
            coordinator, num_processes, process_id, **dict.fromkeys(timeouts, LOST_AFTER)
        )
    try:
        yield
    except mm.Preempted as end:
        print(end, file=sys.stderr)
        raise
    except mm.LostProcessError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(1)  # a normal exit would wait for the lost processes


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, where later runs find them.

    The folder is JAX's setting ``JAX_COMPILATION_CACHE_DIR``, by default a folder below the user's
    cache folder. Programs that compile in less than half a second are not kept.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(caches / "mmvae_jax" / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@contextlib.contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Stores the wall-clock seconds of the block in ``seconds[phase]``."""
    start = time.perf_counter()
    yield
    seconds[phase] = round(time.perf_counter() - start, 2)


def provenance() -> dict[str, Any]:
    """Returns the versions and the device that compute the results."""
    return {
        "versions": {name: version(name) for name in ("mmvae_jax", "jax", "flax")},
        "device": jax.devices()[0].device_kind,
    }


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Writes the content to a file that is never seen half written."""
    write_text(file, json.dumps(content, indent=2) + "\n")
