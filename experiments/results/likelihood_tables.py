"""Tables of likelihood estimates."""

from experiments.results.markdown import significant, table
from experiments.results.records import Record, Row


def prior_share(record: Record) -> str:
    """Returns the price of a share of the prior where experts are good, and its gain elsewhere."""
    *exact, narrow = dict.fromkeys(row["problem"] for row in record.rows)
    own = {(row["problem"], row["share"]): row for row in record.rows}
    header = ("share", *exact, f"{narrow}: mean $\\hat p/p$", "variance of $w/p$")
    rows = []
    for share in dict.fromkeys(row["share"] for row in record.rows):
        price = (own[x, share]["variance"] / own[x, 0.0]["variance"] for x in exact)
        cells = (f"{x:.2f}" for x in price)
        row = own[narrow, share]
        rows.append((f"{share:g}", *cells, f"{row['mean']:.3f}", _variance(row)))
    return table(header, rows)


def _variance(row: Row) -> str:
    """Returns the variance of one weight, which has none without a share."""
    return significant(row["K"] * row["variance"], 2) if row["share"] else "infinite"
