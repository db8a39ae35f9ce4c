"""Tables of times, memory and exactness."""

from collections.abc import Iterable

from experiments.results.markdown import significant, table
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


def exactness(record: Record) -> str:
    """Returns a sentence on the error of the sparse gradient and the final losses."""
    (row,) = record.rows
    return (
        f"The relative error is at most {row['largest_relative_error']:.0e} (median "
        f"{row['median_relative_error']:.1e}) with {row['backward_share']:.0%} of the particles "
        f"back-propagated. The losses of the last 50 steps are {row['final_loss_sparse']:.2f} and "
        f"{row['final_loss_dense']:.2f}."
    )


def gpu_steps(record: Record) -> str:
    """Returns times of steps on a GPU, dense, sparse and of MultiVae."""
    header = (
        "case",
        "here, dense",
        "here, sparse",
        "MultiVae",
        "dense, times as fast",
        "share kept by sparse",
        "temporary memory, dense and sparse",
    )
    rows = []
    for title, own in _gpu_cases(record):
        dense, sparse, other = own["dense"], own["sparse"], own.get("MultiVae")
        faster = "" if other is None else f"{other['median_ms'] / dense['median_ms']:.1f}"
        memory = " / ".join(f"{row['temporary_gb']:.2f}" for row in (dense, sparse))
        rows.append(
            (
                title,
                *(_milliseconds(row) for row in (dense, sparse, other)),
                faster,
                f"{sparse['backward_share']:.0%}",
                f"{memory} GB",
            )
        )
    return table(header, rows)


def gpu_memory(record: Record) -> str:
    """Returns peak memory on the card and the share of the rate of a matrix product."""
    header = (
        "case",
        "peak memory on the card: dense, sparse, MultiVae",
        "share of the rate of a matrix product: dense, sparse",
    )
    rows = []
    for title, own in _gpu_cases(record):
        peaks = (significant(row["peak_device_gb"]) for row in own.values())
        shares = (f"{own[name]['share_of_product_rate']:.1%}" for name in ("dense", "sparse"))
        rows.append((title, f"{', '.join(peaks)} GB", ", ".join(shares)))
    return table(header, rows)


def _gpu_cases(record: Record) -> Iterable[tuple[str, dict[str, Row]]]:
    """Yields the title of a case, and its steps by method."""
    steps = [row for row in record.rows if row["kind"] == "step"]
    for case, K in dict.fromkeys((row["case"], row["K"]) for row in steps):
        own = [row for row in steps if (row["case"], row["K"]) == (case, K)]
        # Where contenders took turns, times of a kind by itself are left out.
        chosen = [row for row in own if row["in_turns"]] or own
        by_method = {row["method"]: row for row in chosen}
        yield (
            f"{case}, K = {K}, batch {own[0]['batch']}",
            {
                name: by_method[name]
                for name in ("dense", "sparse", "MultiVae")
                if name in by_method
            },
        )


def _milliseconds(row: Row | None) -> str:
    if row is None:
        return ""
    median, low, high = (significant(row[f"{name}_ms"]) for name in ("median", "min", "max"))
    return f"{median} ms ({low} to {high})"
