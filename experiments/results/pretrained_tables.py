"""Tables of the study of a pretrained encoder."""

from experiments.results.markdown import mean_and_spread, table
from experiments.results.records import Record

ENCODERS = {
    "pretrained": "EfficientNet-Lite0, frozen",
    "random": "the same with random weights, frozen",
    "scratch": "`ConvEncoder`, trained",
    "logistic": "no MMVAE: logistic regression on the features of EfficientNet-Lite0",
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
