"""Measurements as text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.benchmark import host

Result = Mapping[str, Any]


def report(result: Result) -> str:
    """Returns our measurements and, if there is one, the other contender's, line by line."""
    lines = [(_title(result), ""), *_rows(result)]
    if (other := result["against"]) is not None:
        fast, best = result["times_as_fast"], result["times_as_fast_at_best"]
        lines += [
            ("", ""),
            (f"{other['name']}, in turns with ours", ""),
            *_rows(other),
            ("times as fast", f"{fast:.2f} by medians, {best:.2f} by the fastest repetitions"),
            ("share of memory", f"{result['share_of_memory']:.2f}, by peaks of the processes"),
        ]
        if (share := result["share_of_device_memory"]) is not None:
            lines.append(("share of device memory", f"{share:.2f}, by peaks on the GPU"))
    return align(lines)


def table(result: Result) -> str:
    """Returns the measurements of a sweep, a row per K and kind of backward pass."""
    header = ("K", "backward", "median", "min", "max", "back-propagated", "temporary", "peak")
    lines: list[Sequence[str]] = [header]
    for row in result["rows"]:
        times = (format_seconds(row["seconds"][name]) for name in ("median", "min", "max"))
        memory = (format_bytes(row[f"{name}_bytes"]) for name in ("temp", "peak_resident"))
        share = f"{row['backward_share']:.1%}"
        lines.append((str(row["K"]), row["name"], *times, share, *memory))
    return f"{align(lines)}\n{result['figure']}"


def align(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows as columns two spaces apart.

    A row that ends in an empty cell is a title, which sets no width.
    """
    bodies = [row for row in rows if row[-1]]
    widths = [max(map(len, column)) for column in zip(*bodies, strict=True)]
    texts = []
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        texts.append("  ".join(cells).rstrip() if row[-1] else row[0])
    return "\n".join(texts)


def format_bytes(count: float) -> str:
    """Returns decimal megabytes or gigabytes."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def format_seconds(seconds: float) -> str:
    """Returns seconds, or milliseconds below one."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _title(result: Result) -> str:
    kind = "joint likelihood" if result["task"] == "nll" else f"{result['backward']} step"
    details = [f"K {result['K']}", f"batch {result['batch']}", result["data"]]
    if result["backward"] in ("sparse", "residual"):
        details.insert(2, f"tolerance {result['tolerance']:g}")
    if result["private"]:
        details.append(f"{result['latent_dim']} shared and {result['private']} private latents")
    if result["dtype"] != "float32":
        details.append(result["dtype"])
    if result["precision"] is not None:
        details.append(f"{result['precision']} products")
    if result["train_steps"]:
        details.append(f"after {result['train_steps']} training steps")
    return f"{result['case']}, {kind}: {', '.join(details)}"


def _rows(result: Result) -> Iterable[tuple[str, str]]:
    """Name and text of each measurement."""
    yield "device", result["device"]
    yield "versions", ", ".join(f"{name} {v}" for name, v in result["versions"].items())
    yield "parameters", f"{result['num_parameters']:,}"
    if "compile_seconds" in result:
        cache = result["compilation_cache"]
        note = f", with the cache {cache}" if cache else ""
        yield "compile", f"{format_seconds(result['compile_seconds'])}{note}"
    times = result["seconds"]
    low, median, high = (format_seconds(times[name]) for name in ("min", "median", "max"))
    yield "time", f"{median}, median of {len(times['all'])} from {low} to {high}"
    if "load_average" in result:
        yield "load average", f"{result['load_average']:.1f} at the start, {host.num_cores()} cores"
    peak, ready = (format_bytes(result[f"{when}_resident_bytes"]) for when in ("peak", "ready"))
    yield "peak memory", f"{peak} resident in its process, {ready} before the first repetition"
    if result["peak_device_bytes"] is not None:
        yield "peak device memory", f"{format_bytes(result['peak_device_bytes'])} on the GPU"
    if "temp_bytes" in result:
        yield "temporary memory", f"{format_bytes(result['temp_bytes'])}, of the compiled program"
    if result["backward_share"] is not None:
        dropped = result["metrics"].get("dropped_mass", 0)
        share = f"{result['backward_share']:.1%} of the particles"
        yield "back-propagated", f"{share}, the rest weigh {dropped:.2g}"
    if result.get("model_flops") is not None:
        rate, product = result["flops_per_second"] / 1e9, result["product_flops_per_second"] / 1e9
        fraction, size = result["product_fraction"], result["product_size"]
        dtype = result["dtype"] if result["precision"] is None else result["precision"]
        beside = f"{fraction:.0%} of a {size}^3 {dtype} matrix product's {product:.1f}"
        yield "model FLOPs", f"{result['model_flops'] / 1e9:.4g} GFLOP"
        yield "rate", f"{rate:.1f} GFLOP/s, {beside}"
