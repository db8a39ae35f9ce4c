"""Tables of steps on a GPU, their memory, and notes on profiles."""

from collections.abc import Iterable

from experiments.results.markdown import significant, spread, table
from experiments.results.records import Record, Row


def steps(record: Record) -> str:
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
    for title, own in _cases(record):
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


def memory(record: Record) -> str:
    """Returns peak memory on the card and the share of the rate of a matrix product."""
    header = (
        "case",
        "peak memory on the card: dense, sparse, MultiVae",
        "share of the rate of a matrix product: dense, sparse",
    )
    rows = []
    for title, own in _cases(record):
        peaks = (significant(row["peak_device_gb"]) for row in own.values())
        shares = (f"{own[name]['share_of_product_rate']:.1%}" for name in ("dense", "sparse"))
        rows.append((title, f"{', '.join(peaks)} GB", ", ".join(shares)))
    return table(header, rows)


def notes(record: Record) -> str:
    """Returns what was measured besides: matrix products, compilation, kinds of steps, profiles."""
    (product,) = _of_kind(record, "product")
    compiled = {row["method"]: row["seconds"] for row in _of_kind(record, "compilation")}
    alone = {
        row["method"]: row["median_ms"]
        for row in _of_kind(record, "step")
        if (row["case"], row["K"], row["in_turns"]) == ("mnist_svhn", 30, False)
    }
    profiles = {row["method"]: row for row in _of_kind(record, "profile")}
    busy, gaps, short, kernels = (
        [profiles[method][name] for method in ("dense", "sparse")]
        for name in (
            "busy_share_of_extent",
            "gaps_over_10us_ms_per_step",
            "kernels_below_10us_per_step",
            "kernels_per_step",
        )
    )
    size, medians = product["size"], (f"{ms:.1f} ms ({method})" for method, ms in alone.items())
    found = (
        f"The *rate* is that of the model's FLOPs, beside {product['tf32']:.0f} TFLOP/s of "
        f"square matrices of size {size} in TF32 (float32 {product['float32_highest']:.0f}, "
        f"bfloat16 {product['bfloat16']:.0f}). These are small networks: none of them keeps the "
        "card busy.",
        f"From nothing, two_mlp compiled in {compiled['dense']:.0f} s (dense) and "
        f"{compiled['sparse']:.0f} s (sparse), with ten compilations side by side on 16 cores.",
        "The other kinds of backward pass gain no more: in mnist_svhn, K = 30, 20 steps of each "
        f"kind by itself have medians of {', '.join(medians)}.",
        f"In a profile of mnist_svhn, K = 30, the card is busy for {busy[0]:.0%} of a dense step "
        f"and {busy[1]:.0%} of a sparse one. Gaps above 10 microseconds add up to {gaps[0]:.1f} "
        f"and {gaps[1]:.1f} ms a step, and {short[0]:.0f} of {kernels[0]:.0f} kernels "
        f"({short[1]:.0f} of {kernels[1]:.0f}) take less than 10 microseconds.",
    )
    return "\n".join(f"- {note}" for note in found)


def _of_kind(record: Record, kind: str) -> list[Row]:
    return [row for row in record.rows if row["kind"] == kind]


def _cases(record: Record) -> Iterable[tuple[str, dict[str, Row]]]:
    """Yields the title of a case, and its steps by method."""
    steps = _of_kind(record, "step")
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
    return spread(*(row[f"{name}_ms"] / 1e3 for name in ("median", "min", "max")))
