"""Files that pandas reads: CSV, TSV and Parquet."""

from pathlib import Path
from typing import Any

from mmvae_jax.tables.frames import UNNAMED, IndexColumn, column_named, table_of_frame
from mmvae_jax.tables.packages import damage_named, import_for
from mmvae_jax.tables.values import SourceTable


def read_frame_file(place: str, file: Path, index_col: IndexColumn = None) -> SourceTable:
    """Reads a CSV, TSV or Parquet file.

    Args:
      place: name of the modality and its file, for messages.
      file: path of the file, possibly compressed.
      index_col: column of row names, see ``read_tables``.

    Raises:
      ImportError: if pandas is missing.
      ValueError: if the file is damaged, or as ``table_of_frame``.
    """
    pandas = import_for(str(file), "pandas", "tables")
    if ".parquet" in file.suffixes:
        import_for(str(file), "pyarrow", "tables")
        with damage_named(str(file)):
            frame = pandas.read_parquet(file)
        return table_of_frame(place, frame, index_col)
    separator = "\t" if ".tsv" in file.suffixes else ","
    options = {"sep": separator, "skipinitialspace": True}
    with damage_named(str(file)):
        header = list(pandas.read_csv(file, nrows=0, **options).columns)
    _check_header(file, header)
    names = UNNAMED if index_col is None else column_named(place, header, index_col)
    with damage_named(str(file)):  # names of rows stay text, because "007" is not 7
        frame = pandas.read_csv(file, dtype={names: str}, low_memory=False, **options)
    return table_of_frame(place, frame, index_col)


def _check_header(file: Path, header: list[Any]) -> None:
    """Refuses files with another separator, and files whose first row is data."""
    if len(header) == 1 and any(mark in str(header[0]) for mark in ";\t|"):
        raise ValueError(
            f"{file} has one column, {header[0]!r}: separate columns by commas, or by tabs in a "
            ".tsv"
        )
    numbers = [_as_number(name) for name in header]
    if numbers[0] is None:
        numbers = numbers[1:]  # of a column of names
    if None in numbers or not numbers:
        return
    is_count = any(numbers == [*range(start, start + len(numbers))] for start in (0, 1))
    if len(header) == 1 or not is_count:
        raise ValueError(
            f"{file} begins with the row {header[:4]}: its first row has to name the columns"
        )


def _as_number(name: Any) -> float | None:
    try:
        return float(str(name))
    except ValueError:
        return None
