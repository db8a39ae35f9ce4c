"""Rows of measurements in a file of JSON lines: a second call computes only those that it lacks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROWS_FILE = "rows.jsonl"


class Rows:
    """Rows of a folder of results, kept in ``rows.jsonl``.

    A stopped program loses at most the row that it was computing.

    Attributes:
      all: rows of earlier calls and of this one.
    """

    def __init__(self, folder: Path) -> None:
        """Reads the rows of a folder, which is made if it does not exist."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / ROWS_FILE
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        self.all: list[dict[str, Any]] = [json.loads(line) for line in lines]

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
