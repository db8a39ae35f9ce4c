"""Tables of trained models: bounds, coherences and probes."""

from collections.abc import Sequence

from experiments.results.markdown import table
from experiments.results.records import Record, Row


def digits(record: Record) -> str:
    """Returns a row per command of the digits experiment, and chance."""
    header = (
        f"`{record.commands[0]}`",
        "bound, nats",
        "conditional coherence",
        "joint coherence",
        "latent probe",
    )
    shares = ("conditional_coherence", "joint_coherence", "latent_probe")
    rows = []
    for row in record.rows:
        flags = row["command"].removeprefix(record.commands[0]).strip()
        cells = (f"{row[name]:.3f}" for name in shares)
        rows.append((f"`{flags}`" if flags else "(defaults)", f"{row['test_bound']:.0f}", *cells))
    return table(header, [*rows, ("chance", "", "0.100", "0.010", "0.100")])


def polymnist_models(record: Record) -> str:
    """Returns the coherences and probes of MMVAE, MMVAE+ and CMVAE."""
    header = (
        "",
        "conditional coherence",
        "after 1/4, 1/2, 3/4 of the time",
        "joint coherence",
        "its effective classes",
        "probe of u",
        "probe of w",
    )
    return table(header, [_polymnist_row(row) for row in record.rows])


def _polymnist_row(row: Row) -> Sequence[str]:
    return (
        row["model"],
        f"{row['conditional_coherence']:.3f}",
        ", ".join(f"{x:.3f}" for x in row["conditional_coherence_on_the_way"]),
        f"{row['joint_coherence']:.3f}",
        f"{row['effective_classes']:.1f}",
        f"{row['probe_u']:.3f}",
        f"{row['probe_w']:.3f}" if row.get("probe_w") is not None else "",
    )
