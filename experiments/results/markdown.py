"""Markdown of tables and numbers."""

from collections.abc import Iterable, Sequence

import numpy as np

from experiments.results.records import Record

#: Packages that a note on the origin of numbers names.
NAMED = ("jax", "flax", "torch", "multivae")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table of cells."""
    lines = [_line(header), "|---" * len(header) + "|", *map(_line, rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def mean_and_spread(values: Sequence[float], decimals: int) -> str:
    """Returns the mean and, of several values, their sample standard deviation.

    >>> mean_and_spread([0.5, 0.7], 2), mean_and_spread([3.14159], 1)
    ('0.60 ± 0.14', '3.1')
    """
    if not values:
        return ""
    text = f"{np.mean(values):.{decimals}f}"
    return text if len(values) == 1 else f"{text} ± {np.std(values, ddof=1):.{decimals}f}"


def significant(value: float, digits: int = 3) -> str:
    """Returns a number with a few significant digits and no exponent.

    >>> significant(0.001234), significant(12.345), significant(310.4, 2)
    ('0.00123', '12.3', '310')
    """
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    decimals = digits - 1 - int(np.floor(np.log10(abs(value))))
    return f"{value:.{max(decimals, 0)}f}"


def seconds(value: float) -> str:
    """Returns seconds, or milliseconds below one, with three digits."""
    return f"{significant(value)} s" if value >= 1 else f"{significant(1e3 * value)} ms"


def spread(median: float, low: float, high: float) -> str:
    """Returns seconds with their range, in the unit of the median.

    >>> spread(0.25, 0.125, 1.5), spread(1.5, 0.75, 2.0)
    ('250 ms (125 to 1500)', '1.50 s (0.750 to 2.00)')
    """
    unit, factor = ("s", 1) if median >= 1 else ("ms", 1e3)
    shown, least, most = (significant(factor * x) for x in (median, low, high))
    return f"{shown} {unit} ({least} to {most})"


def origin(record: Record) -> str:
    """Returns a sentence on the commit, day, machine and versions of a record."""
    packages = [f"{name} {record.versions[name]}" for name in NAMED if name in record.versions]
    origin = f"Commit {record.commit}, {record.date}; {record.device}; {', '.join(packages)}."
    return f"*{origin}*"
