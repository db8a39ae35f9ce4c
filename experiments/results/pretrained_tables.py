"""Tables of the study of a pretrained encoder."""

from experiments.results.markdown import mean_and_spread, seconds, table
from experiments.results.records import Record

ENCODERS = {
    "pretrained": "EfficientNet-Lite0, frozen",
    "random": "the same with random weights, frozen",
    "scratch": "`ConvEncoder`, trained",
    "logistic": "no MMVAE: logistic regression on the features of EfficientNet-Lite0",
}
USES = {
    "partition": "`optax.partition`",
    "stop_gradient": "and `stop_gradient`",
    "features": "features computed before",
}


def encoders(record: Record) -> str:
    """Returns the accuracy of words from photographs, and the bound, of every encoder."""
    header = (
        "encoder of photographs",
        "right words, test",
        "right words, training",
        "test bound, nats",
    )
    decimals = {"accuracy": 3, "train_accuracy": 3, "test_bound": 0}
    lines = []
    for encoder, name in ENCODERS.items():
        rows = [row for row in record.rows if row.get("encoder") == encoder]
        cells = (
            mean_and_spread([row[field] for row in rows if field in row], places)
            for field, places in decimals.items()
        )
        lines.append((name, *cells))
    return table(header, lines)


def uses(record: Record) -> str:
    """Returns the cost of a step with each use of the frozen trunk, and the loss it leads to."""
    rows = {row["use"]: row for row in record.rows if "use" in row}
    num_steps = rows["features"]["num_timed"] + 1
    header = ("frozen trunk", "processor time per step", f"loss of step {num_steps}")
    lines = [
        (name, seconds(rows[use]["cpu_seconds"]), f"{rows[use]['loss']:.2f}")
        for use, name in USES.items()
    ]
    return table(header, lines)
