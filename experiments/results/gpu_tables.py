"""Tables of steps on a GPU, from rows of the benchmark."""

from collections.abc import Iterator

from experiments.results.markdown import significant, table
from experiments.results.records import Record, Row
from experiments.results.speed_tables import times


def steps(record: Record) -> str:
    """Returns times and memory of our dense steps, and of MultiVae's in turns."""
    header = (
        "case",
        "MultiVae",
        "here, dense",
        "times as fast",
        "peak memory on the card: MultiVae, here",
        "share of the rate of a matrix product",
    )
    rows = []
    for row in _against(record, "multivae"):
        other = row["against"]
        peaks = (significant(each["peak_device_bytes"] / 1e9) for each in (other, row))
        rows.append(
            (
                _case(row),
                times(other),
                times(row),
                f"{row['times_as_fast']:.1f}",
                f"{', '.join(peaks)} GB",
                f"{row['product_fraction']:.1%}",
            )
        )
    return table(header, rows)


def sparse_steps(record: Record) -> str:
    """Returns times and temporary memory of sparse steps and of dense ones."""
    header = ("case", "share kept", "sparse", "dense", "sparse / dense", "temporary memory of both")
    rows = []
    for row in _against(record, "dense"):
        other = row["against"]
        memory = (f"{each['temp_bytes'] / 1e9:.2f}" for each in (row, other))
        rows.append(
            (
                _case(row),
                f"{row['backward_share']:.0%}",
                times(row),
                times(other),
                f"{1 / row['times_as_fast']:.2f}",
                f"{', '.join(memory)} GB",
            )
        )
    return table(header, rows)


def product_rate(record: Record) -> str:
    """Returns the largest measured rate of square matrices of TF32."""
    return f"{max(row['product_flops_per_second'] for row in record.rows) / 1e12:.0f} TFLOP/s"


def _against(record: Record, name: str) -> Iterator[Row]:
    return (row for row in record.rows if row["against"]["name"] == name)


def _case(row: Row) -> str:
    latents = f", MMVAE+ {row['latent_dim']} + {row['private']}" if row["private"] else ""
    return f"{row['case']}{latents}, K = {row['K']}, batch {row['batch']}"
