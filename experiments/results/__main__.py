"""Measures the numbers of the documentation, and writes its tables.

python -m experiments.results list
python -m experiments.results run digits losses --data FOLDER
python -m experiments.results tables
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.benchmark.report import align
from experiments.command_line import run_command
from experiments.results import pages, records
from experiments.results.run_study import run
from experiments.results.studies import STUDIES
from mmvae_jax.checks import check_choice


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResultsConfig:
    """List the studies of the documentation, run some, or write the tables of the pages."""

    action: Annotated[Literal["list", "run", "tables"], tyro.conf.Positional]
    """list: studies and the age of their results. run: run or resume studies, and write tables.
    tables: write the tables of all pages from docs/results."""
    studies: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Studies to run; all if none is named."""
    data: Path | None = None
    """Folder of the data sets: mnist, and polymnist from experiments.make_polymnist."""
    out: Path = Path("runs/results")
    """Folder of the runs, kept so that a stopped study can be resumed."""

    def __post_init__(self) -> None:
        for name in self.studies:
            check_choice("studies", name, tuple(STUDIES))


def main(config: ResultsConfig) -> None:
    """Lists or runs studies, or writes the tables."""
    if config.action == "list":
        print(listing())
        return
    if config.action == "run":
        data = config.data and config.data.absolute()
        for name in config.studies or STUDIES:
            print(records.write(run(STUDIES[name], config.out.absolute(), data)))
    for page in pages.write():
        print(page)


def listing() -> str:
    """Returns a table of the studies with the age of their results."""
    header = ("study", "minutes", "measured", "commit", "changes since", "about")
    rows: list[tuple[str, ...]] = [header]
    for study in STUDIES.values():
        found = ("", "", "")
        if records.path_of(study.name).exists():
            record = records.read(study.name)
            changes = records.num_changes_since(record.commit)
            found = (record.date, record.commit, "unknown" if changes is None else str(changes))
        rows.append((study.name, f"{study.minutes:g}", *found, study.about))
    total = sum(study.minutes for study in STUDIES.values())
    return f"{align(rows)}\n{total:g} minutes in all, on two cores"


if __name__ == "__main__":
    try:
        run_command(main, ResultsConfig, "experiments.results")
    except ChildProcessError as error:
        sys.exit(f"error: {error}")
