"""Tables of times, memory and exactness."""

import numpy as np

from experiments.results.markdown import seconds, spread, table
from experiments.results.records import Record, Row
from experiments.scaling import UNITS


def scaling(record: Record) -> str:
    """Returns the cost per device by the formulas and of the compiled program, by mesh."""
    header = (
        "data",
        "particle",
        "fsdp",
        "GFLOP",
        "kept, MB",
        *(f"{x}, MB" for x in list(UNITS)[2:]),
    )
    rows = []
    for row in record.rows:
        costs = ((row["formula"][name] / x, row["program"][name] / x) for name, x in UNITS.items())
        cells = (f"{formula:.2f} / {program:.2f}" for formula, program in costs)
        mesh = (str(row["data"]), str(row["particle"]), "yes" if row["fsdp"] else "")
        rows.append((*mesh, *(cell.replace("0.00 / 0.00", "0 / 0") for cell in cells)))
    return table(header, rows)


def against_multivae(record: Record) -> str:
    """Returns times and memory of our steps and likelihoods, and of MultiVae's in turns."""
    header = (
        "case",
        "MultiVae",
        "here",
        "times as fast",
        "by minima",
        "peak memory",
        "back-propagated",
        "rate",
    )
    rows = []
    for row in record.rows:
        other = row["against"]
        rows.append(
            (
                _case(row),
                times(other),
                times(row),
                f"{row['times_as_fast']:.1f}",
                f"{row['times_as_fast_at_best']:.1f}",
                _peaks(row, other),
                _share(row["backward_share"]),
                _share(row.get("product_fraction")),
            )
        )
    return table(header, rows)


def range_against_multivae(record: Record) -> str:
    """Returns the smallest and the largest number of times that a step is as fast."""
    ratios = [row["times_as_fast"] for row in record.rows if row["task"] == "step"]
    return f"{min(ratios):.1f} to {max(ratios):.1f}"


def ratio(record: Record) -> str:
    """Returns the time of our step over that of the other contender, of medians."""
    (row,) = record.rows
    return f"{1 / row['times_as_fast']:.3f}"


def against_dense(record: Record) -> str:
    """Returns times and memory of ``auto`` and ``dense`` steps by the share of particles kept."""
    header = (
        "case",
        "scale",
        "back-propagated",
        "auto",
        "dense",
        "auto / dense",
        "rate of auto",
        "peak memory, auto and dense",
    )
    rows = []
    for row in record.rows:
        other = row["against"]
        rows.append(
            (
                _case(row),
                f"{row['scale']:g}",
                _share(row["backward_share"]),
                seconds(row["seconds"]["median"]),
                seconds(other["seconds"]["median"]),
                f"{1 / row['times_as_fast']:.2f}",
                _share(row["product_fraction"]),
                _peaks(row, other),
            )
        )
    return table(header, rows)


def small_steps(record: Record) -> str:
    """Returns the time of a sparse step over that of a dense one, by the number of particles."""
    rows = []
    for row in record.rows:
        num_particles = 2 * row["K"] * row["batch"]
        sparse, dense = (each["seconds"]["median"] for each in (row, row["against"]))
        rows.append((str(num_particles), seconds(sparse), seconds(dense), f"{sparse / dense:.2f}"))
    return table(("particles", "sparse", "dense", "sparse / dense"), rows)


def private_latents(record: Record) -> str:
    """Returns times of an MMVAE+ step, and of MultiVae's or of our MMVAE's in turns."""
    names = {"multivae": "MMVAE+ of MultiVae", "mmvae": "MMVAE here"}
    header = ("in turns with", "K", "its step", "MMVAE+ here", "its step / ours", "by minima")
    rows = []
    for row in record.rows:
        other = row["against"]
        ratios = (f"{row[name]:.2f}" for name in ("times_as_fast", "times_as_fast_at_best"))
        rows.append((names[other["name"]], str(row["K"]), times(other), times(row), *ratios))
    return table(header, rows)


def _case(row: Row) -> str:
    if row["task"] == "nll":
        return f"{row['case']}, joint likelihood"
    return f"{row['case']}, {'digits' if row['train_steps'] else 'random'}"


def times(row: Row) -> str:
    """Returns the median, the minimum and the maximum of a contender's repetitions."""
    return spread(*(row["seconds"][name] for name in ("median", "min", "max")))


def _peaks(row: Row, other: Row) -> str:
    peaks = (f"{each['peak_resident_bytes'] / 1e9:.2f}" for each in (row, other))
    return f"{' / '.join(peaks)} GB"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def startup(record: Record) -> str:
    """Returns median seconds of a new process to its first step, and its peak memory."""
    header = ("case", "cache", "import", "model", "first step done", "peak memory")
    rows = []
    for case, cache in dict.fromkeys((row["case"], row["cache"]) for row in record.rows):
        own = [row for row in record.rows if (row["case"], row["cache"]) == (case, cache)]
        times = (
            f"{np.median([row['seconds'][phase] for row in own]):.1f} s"
            for phase in ("import", "model", "first step")
        )
        peak = np.median([row["peak_bytes"] for row in own]) / 1e9
        rows.append((case, cache, *times, f"{peak:.2f} GB"))
    return table(header, rows)


def exactness(record: Record) -> str:
    """Returns a sentence on the error of the sparse gradient and the final losses."""
    (row,) = record.rows
    return (
        f"The relative error is at most {row['largest_relative_error']:.0e} (median "
        f"{row['median_relative_error']:.1e}) with {row['backward_share']:.0%} of the particles "
        f"back-propagated. The losses of the last 50 steps are {row['final_loss_sparse']:.2f} and "
        f"{row['final_loss_dense']:.2f}."
    )
