"""history.csv: the metrics of every training step, one row per step."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


class History:
    """A CSV file that grows with a run; its first columns are ``step`` and ``loss``."""

    def __init__(self, file: Path):
        self.file = file
        self._step = 0

    def start(self, step: int) -> None:
        """Go on after so many steps.

        Rows of later steps, left by a run that was stopped after its last checkpoint, are dropped:
        the run is about to write them again.

        Raises:
          ValueError: if the file lacks rows of earlier steps.
        """
        file = self.file
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        num_rows = max(len(lines) - 1, 0)
        if num_rows < step:
            raise ValueError(
                f"{file} has {num_rows} rows, but the run is at step {step}: put back the file "
                "that the run wrote, or start a new run in another folder"
            )
        if num_rows > step:
            partial = file.with_suffix(".partial")
            partial.write_text("".join(lines[: 1 + step]))
            partial.replace(file)
        self._step = step

    def append(self, rows: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Write the metrics of the next steps."""
        others = [name for name in rows[0] if name != "loss"]
        with self.file.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if file.tell() == 0:
                writer.writerow(["step", "loss", *others])
            for row in rows:
                self._step += 1
                # 9 digits tell any two 32-bit floats apart.
                values = (f"{float(row[name]):.9g}" for name in ("loss", *others))
                writer.writerow([self._step, *values])

    def read(self) -> dict[str, np.ndarray]:
        """Every column by name, in the order of the steps."""
        with self.file.open(newline="") as file:
            names, *rows = csv.reader(file)
        columns = dict(zip(names, np.array(rows, float).T, strict=True))
        return columns | {"step": columns["step"].astype(int)}
