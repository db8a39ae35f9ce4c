"""Rows of measurements in a file of JSON lines: a second call computes only those that it lacks."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.runs import write_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ROWS_FILE = "rows.jsonl"
SETTINGS_FILE = "settings.json"
#: Fields of folders and files of inputs, which may move between two calls.
PLACES = ("data", "data_dir", "multivae_python", "out", "weights")


class Rows:
    """Rows of a folder of results, kept in ``rows.jsonl``.

    A stopped program loses at most the row that it was computing. All rows of a folder have the
    same settings: those fields of the config that are not tuples, whose values tell rows apart.

    Attributes:
      all: rows of earlier calls and of this one.
    """

    def __init__(self, folder: Path, config: "DataclassInstance") -> None:
        """Reads the rows of a folder, which is made if it does not exist.

        Raises:
          ValueError: if the folder has rows of other settings.
        """
        self._file = folder / ROWS_FILE
        self._check_settings(folder / SETTINGS_FILE, _settings(config))
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        self.all: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def _check_settings(self, file: Path, settings: Mapping[str, Any]) -> None:
        """Compares the settings with those of earlier rows, or writes them if there are none."""
        if not self._file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, settings)
            return
        earlier = json.loads(file.read_text()) if file.exists() else {}
        for name, value in settings.items():
            there = earlier.get(name, "not recorded")
            if there != value:
                raise ValueError(
                    f"{name} is {value}, but {there} for the rows in {self._file}: choose another "
                    "--out, or the setting of these rows"
                )

    def has(self, fields: Mapping[str, Any]) -> bool:
        """Returns if a row has these fields with these values."""
        return any(fields.items() <= row.items() for row in self.all)

    def add(self, row: dict[str, Any]) -> None:
        """Writes a row to the file and prints it."""
        text = json.dumps(row)
        with self._file.open("a") as stream:
            stream.write(text + "\n")
        self.all.append(json.loads(text))
        print(text, flush=True)


def _settings(config: "DataclassInstance") -> dict[str, Any]:
    """Returns the fields that all rows have in common, as JSON holds them."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        name: str(value.absolute()) if isinstance(value, Path) else value
        for name, value in fields.items()
        if name not in PLACES and not isinstance(value, tuple)
    }
