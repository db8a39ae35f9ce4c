"""Seconds from the start of Python to the end of the first training step, and peak memory.

    python -m experiments.startup --out runs/startup

Every run is a process of its own. The first one of a case compiles all programs, and the second
reads them from JAX's cache of compiled programs.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.benchmark.cases import CASES
from experiments.benchmark.report import align, format_bytes
from experiments.command_line import run_command
from experiments.rows import Rows
from mmvae_jax.checks import check_choice, check_count

#: Contents of the compilation cache when a process starts.
CACHES = ("empty", "filled")
#: Steps of a process, in seconds since its own start.
PHASES = ("import", "model", "first step", "second step")
# A new process of the same interpreter: only its own imports and programs count.
PROGRAM = """
import json, sys, time
start = time.perf_counter()
import jax, numpy as np, optax
import mmvae_jax as mm
from experiments.benchmark import host
from experiments.benchmark.cases import CASES
from experiments.benchmark.models import build_model
times = {"import": time.perf_counter() - start}
case = CASES[sys.argv[1]]
model = build_model(case, case.K, seed=0)
state = mm.create_train_state(model, optax.adam(1e-3), key=jax.random.key(0))
images = {m: np.zeros((case.batch, *spec.dim), np.float32) for m, spec in case.modalities.items()}
times["model"] = time.perf_counter() - start
for step in ("first step", "second step"):
    state, metrics = jax.block_until_ready(mm.train_step(state, mm.Batch(images)))
    times[step] = time.perf_counter() - start
print(json.dumps({"seconds": times, "peak_bytes": host.peak_resident_bytes()}))
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartupConfig:
    """Time a process from its start to its first training step, with and without a cache."""

    cases: tuple[str, ...] = tuple(CASES)
    """Models of experiments.benchmark."""
    repeats: int = 3
    """Number of pairs of processes per case."""
    out: Path = Path("runs/startup")
    """Folder of the results, new or of an earlier call whose rows are kept."""

    def __post_init__(self) -> None:
        for case in self.cases:
            check_choice("cases", case, tuple(CASES))
        check_count("repeats", self.repeats)


def main(config: StartupConfig) -> list[dict[str, Any]]:
    """Computes the rows that ``out`` lacks, prints a table, and returns all rows."""
    rows = Rows(config.out, config)
    for case in config.cases:
        for repeat in range(config.repeats):
            asked = [{"case": case, "repeat": repeat, "cache": kind} for kind in CACHES]
            if all(map(rows.has, asked)):
                continue
            with tempfile.TemporaryDirectory() as cache:
                for each in asked:
                    found = start_process(case, Path(cache))
                    if not rows.has(each):
                        rows.add(each | found)
    table: list[tuple[str, ...]] = [("case", "cache", *PHASES, "peak memory")]
    for row in rows.all:
        cells = (f"{row['seconds'][phase]:.2f} s" for phase in PHASES)
        table.append((row["case"], row["cache"], *cells, format_bytes(row["peak_bytes"])))
    print(align(table))
    return rows.all


def start_process(case: str, cache: Path) -> dict[str, Any]:
    """Returns the seconds of each phase of a new process, its total, and its peak memory."""
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, case],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    total = time.perf_counter() - start
    if done.returncode:
        raise ChildProcessError(f"the process of {case} failed: {done.stderr[-1000:]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "total_seconds": total}


if __name__ == "__main__":
    run_command(main, StartupConfig, "experiments.startup")
