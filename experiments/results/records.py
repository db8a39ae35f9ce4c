"""Records of studies: files of ``docs/results`` with measured rows and how they came about."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.runs import write_json
from experiments.versions import ROOT, git

RESULTS = ROOT / "docs" / "results"
PACKAGE = "mmvae_jax"
#: Folders whose changes can change a result.
SOURCES = (PACKAGE, "experiments")

#: One measurement: the fields that identify it and the values.
Row = dict[str, Any]


class Record(NamedTuple):
    """A finished study.

    Attributes:
      study: name of the study.
      commands: command lines, with FOLDER for that of the data.
      commit: commit that computed the rows; several are joined by a comma.
      date: day of the last command, as YYYY-MM-DD.
      seconds: wall-clock seconds of all commands; None if they were not recorded.
      device: processor and number of cores, or accelerator.
      versions: versions of packages and Python.
      rows: measurements.
    """

    study: str
    commands: Sequence[str]
    commit: str
    date: str
    seconds: float | None
    device: str
    versions: dict[str, str]
    rows: list[Row]


def path_of(study: str) -> Path:
    """Returns the file of a study."""
    return RESULTS / f"{study}.json"


def read(study: str) -> Record:
    """Reads the record of a study.

    Raises:
      FileNotFoundError: if the study has not been run.
    """
    file = path_of(study)
    if not file.exists():
        raise FileNotFoundError(
            f"{file} does not exist: run `python -m experiments.results run {study}`"
        )
    return Record(**json.loads(file.read_text()))


def write(record: Record) -> Path:
    """Writes the record of a study and returns its file."""
    file = path_of(record.study)
    write_json(file, record._asdict())
    return file


def check_commit() -> str:
    """Returns the commit of the sources.

    Raises:
      ValueError: if the sources have changes that are not committed, or git does not answer.
    """
    if changed := git("status", "--porcelain", "--", *SOURCES):
        raise ValueError(
            f"the sources have changes that no commit has ({changed.split()[-1]}): commit them, so "
            "that the record can name the code that computed it"
        )
    if not (commit := git("rev-parse", "--short=7", "HEAD")):
        raise ValueError(f"{ROOT} has no commit that git can read: run studies from a clone")
    return commit


def num_changes_since(commit: str) -> int | None:
    """Returns the number of commits that changed the package since those of a record.

    Args:
      commit: commit of a record; the oldest counts if several are joined by commas.

    Returns:
      The number, 0 if the package is the same; None if the commit is unknown.
    """
    counts = [
        git("rev-list", "--count", f"{each}..HEAD", "--", PACKAGE) for each in commit.split(", ")
    ]
    return max(map(int, counts)) if all(counts) else None
