"""Measures the numbers of the documentation, and writes its tables.

python -m experiments.results list
python -m experiments.results run digits losses --data FOLDER --jobs 2
python -m experiments.results tables
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.benchmark.report import align
from experiments.command_line import run_command
from experiments.results import pages, records
from experiments.results.run_study import run_all
from experiments.results.studies import ON_CPU, STUDIES
from mmvae_jax.checks import check_choice, check_count


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResultsConfig:
    """List the studies of the documentation, run some, or write the tables of the pages."""

    action: Annotated[Literal["list", "run", "tables"], tyro.conf.Positional]
    """list: studies and the age of their results. run: run or resume studies, and write tables.
    tables: write the tables of all pages from docs/results."""
    studies: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Studies to run; all that need no GPU if none is named."""
    data: Path | None = None
    """Folder of mnist, efficientnet_lite0.safetensors from experiments.pretrained.weights, and
    polymnist and quadrant/polymnist from experiments.make_polymnist."""
    jobs: int = 1
    """Studies that run side by side on one core each, after those of times, which run alone."""
    out: Path = Path("runs/results")
    """Folder of the runs, kept so that a stopped study can be resumed."""

    def __post_init__(self) -> None:
        for name in self.studies:
            check_choice("studies", name, tuple(STUDIES))
        check_count("jobs", self.jobs)


def main(config: ResultsConfig) -> None:
    """Lists or runs studies, or writes the tables."""
    if config.action == "list":
        print(listing())
        return
    if config.action == "run":
        data = config.data and config.data.absolute()
        chosen = [STUDIES[name] for name in dict.fromkeys(config.studies or ON_CPU)]
        for record in run_all(chosen, config.out.absolute(), data, config.jobs):
            print(records.write(record))
    for page in pages.write():
        print(page)


def listing() -> str:
    """Returns a table of the studies with the age of their results."""
    header = ("study", "minutes", "measured", "commit", "changes of the package", "about")
    rows: list[tuple[str, ...]] = [header]
    for study in STUDIES.values():
        found = ("", "", "")
        if records.path_of(study.name).exists():
            record = records.read(study.name)
            changes = records.num_changes_since(record.commit)
            found = (record.date, record.commit, "unknown" if changes is None else str(changes))
        rows.append((study.name, f"{study.minutes:g}", *found, study.about))
    on_cpu = [STUDIES[name] for name in ON_CPU]
    total = sum(study.minutes / (1 if study.has_times else 2) for study in on_cpu)
    on_gpu = sum(study.minutes for study in STUDIES.values() if study.on_gpu)
    note = f"{total:.0f} minutes in all with --jobs 2 on two cores, and {on_gpu:.0f} on a GPU"
    return f"{align(rows)}\n{note}"


if __name__ == "__main__":
    run_command(main, ResultsConfig, "experiments.results")
