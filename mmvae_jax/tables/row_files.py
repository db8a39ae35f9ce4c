"""Choice of a table's rows by a file of their names or numbers."""

from pathlib import Path

import numpy as np
from jaxtyping import Int

from mmvae_jax.tables.tables import Tables


def read_row_file(file: Path, tables: Tables) -> Int[np.ndarray, " r"]:
    """Returns the numbers of the rows that a text file lists, in its order.

    Args:
      file: one row per line: its name if the tables have an index, otherwise its number from 0.
      tables: tables of these rows.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming the line of a row that is unknown or repeated.
    """
    if not file.is_file():
        raise FileNotFoundError(f"rows is {file}: it does not exist, give a text file of row names")
    index = range(tables.num_rows) if tables.index is None else tables.index
    places = {str(name): place for place, name in enumerate(index)}
    rows: dict[int, None] = {}  # in order, and found at once
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not (name := line.strip()):
            continue
        if name not in places:
            kind = "numbers from 0" if tables.index is None else "names of the tables' index"
            raise ValueError(f"line {number} of {file} is {name!r}: give {kind}")
        if places[name] in rows:
            raise ValueError(f"line {number} of {file} repeats the row {name!r}: list it once")
        rows[places[name]] = None
    if not rows:
        raise ValueError(f"{file} lists no rows: give one per line")
    return np.array(list(rows))
