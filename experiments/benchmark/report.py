"""Measurements as text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]

#: Share of the cores from which on other processes decide which contender is fast.
BUSY = 0.05


def report(result: Result) -> str:
    """A measurement of ours, and of another contender if there is one, for people to read."""
    lines = [(_title(result), ""), *_rows(result)]
    if result["against"] is not None:
        other = result["against"]
        lines += [("", ""), (f"{other['name']}, in turns with it", ""), *_rows(other)]
        lines += [
            (
                "times as fast",
                f"{result['times_as_fast']:.2f} by medians, "
                f"{result['times_as_fast_at_best']:.2f} by the fastest repetitions",
            ),
            ("share of memory", f"{result['share_of_memory']:.2f}, by peaks of the processes"),
        ]
    return aligned(lines)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart; a row that ends in empty cells is a title and sets no width."""
    bodies = [row for row in rows if row[-1]]
    widths = [max(map(len, column)) for column in zip(*bodies, strict=True)]
    texts = []
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        texts.append("  ".join(cells).rstrip() if row[-1] else row[0])
    return "\n".join(texts)


def bytes_text(count: float) -> str:
    """Decimal units."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def seconds_text(seconds: float) -> str:
    """Seconds, or milliseconds below one."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _title(result: Result) -> str:
    what = "joint likelihood" if result["task"] == "nll" else f"{result['backward']} step"
    details = [f"K {result['K']}", f"batch {result['batch']}", result["data"]]
    if result["backward"] in ("sparse", "residual"):
        details.insert(2, f"tolerance {result['tolerance']:g}")
    if result["train_steps"]:
        details.append(f"after {result['train_steps']} training steps")
    if result["compilation_cache"]:
        details.append("compilation cache")
    return f"{result['case']}, {what}: {', '.join(details)}"


def _rows(result: Result) -> Iterable[tuple[str, str]]:
    yield "device", result["device"]
    yield "versions", ", ".join(f"{name} {v}" for name, v in result["versions"].items())
    yield "parameters", f"{result['num_parameters']:,}"
    if "compile_seconds" in result:
        yield "compile", seconds_text(result["compile_seconds"])
    times = result["seconds"]
    low, high = seconds_text(times["min"]), seconds_text(times["max"])
    median, num = seconds_text(times["median"]), len(times["all"])
    yield "time", f"{median}, median of {num} from {low} to {high}"
    if result["load_of_others"] is not None:
        load = f"used by other processes meanwhile: {result['load_of_others']:.0%}"
        yield "cores", f"{load}, too busy to compare" if result["load_of_others"] > BUSY else load
    peak, ready = (bytes_text(result[f"{when}_resident_bytes"]) for when in ("peak", "ready"))
    yield "peak memory", f"{peak} resident in its process, {ready} before the first repetition"
    if "temp_bytes" in result:
        yield "temporary memory", f"{bytes_text(result['temp_bytes'])}, of the compiled program"
    if result.get("backward_share") is not None:
        dropped = result["metrics"].get("dropped_mass", 0)
        share = f"{result['backward_share']:.1%} of the particles"
        yield "back-propagated", f"{share}, the rest weigh {dropped:.2g}"
    if result.get("model_flops") is not None:
        rate, product = result["flops_per_second"] / 1e9, result["product_flops_per_second"] / 1e9
        yield "model FLOPs", f"{result['model_flops'] / 1e9:.4g} GFLOP"
        yield (
            "rate",
            (
                f"{rate:.1f} GFLOP/s, {result['product_fraction']:.0%} of a "
                f"{result['product_size']}^3 float32 matrix product's {product:.1f}"
            ),
        )
