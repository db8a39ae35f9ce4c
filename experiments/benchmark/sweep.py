"""Cost against K, or against the batch, of three ways to back-propagate."""

import sys
from collections.abc import Mapping
from typing import Any

from experiments.benchmark.config import Config
from experiments.benchmark.contest import Entry, measure
from experiments.benchmark.figure import STYLES, Row, draw
from experiments.benchmark.report import aligned, bytes_text, seconds_text

#: A program may need this share of the memory that is left.
MEMORY_SHARE = 0.5


def sweep(config: Config) -> dict[str, Any]:
    """Time the three at every value, in turns; the figure is left in its file.

    Programs that need more than half of the memory that is left are skipped, with the reason.
    """
    assert config.sweep is not None, "the caller has checked"
    rows: list[Row] = []
    for value in config.swept_values:
        print(f"{config.sweep} = {value}", file=sys.stderr)
        at_value = config.replace(**{config.sweep: value})
        entries = [Entry(kind, "ours", at_value.replace(backward=kind)) for kind in STYLES]
        results = measure(entries, config.repeats, memory_share=MEMORY_SHARE)
        rows += [{config.sweep: value, **result} for result in results]
    swept = ("backward", config.sweep)
    fixed = {name: value for name, value in config.described().items() if name not in swept}
    sizes = ", ".join(f"{name} {fixed[name]}" for name in ("K", "batch") if name in fixed)
    title = f"{config.case}, {sizes}, {config.data_name}, {rows[0]['device']}"
    draw(rows, config.sweep, title).savefig(config.figure_file, dpi=150)
    return {
        **fixed,
        "sweep": config.sweep,
        "device": rows[0]["device"],
        "versions": rows[0]["versions"],
        "rows": [{k: v for k, v in row.items() if k not in ("device", "versions")} for row in rows],
        "figure": str(config.figure_file),
    }


def table(result: Mapping[str, Any]) -> str:
    """What was measured, a row per value and kind."""
    swept = result["sweep"]
    versions = ", ".join(f"{name} {v}" for name, v in result["versions"].items())
    title = f"{result['case']}, {result['data']}, {result['device']}, {versions}"
    header = (swept, "backward", "median", "min", "max", "back-propagated", "temporary", "peak")
    body = [(str(row[swept]), row["name"], *_cells(row)) for row in result["rows"]]
    skipped = [
        f"skipped {row['name']} at {swept} = {row[swept]}: {row['skipped']}"
        for row in result["rows"]
        if "skipped" in row
    ]
    return "\n".join([title, aligned([header, *body]), *skipped, result["figure"]])


def _cells(row: Row) -> tuple[str, ...]:
    if "skipped" in row:
        return ("skipped", "", "", "", bytes_text(row["temp_bytes"]), "-")
    times = row["seconds"]
    share = row["backward_share"]
    return (
        *(seconds_text(times[name]) for name in ("median", "min", "max")),
        "-" if share is None else f"{share:.1%}",
        bytes_text(row["temp_bytes"]),
        bytes_text(row["peak_resident_bytes"]),
    )
