"""Tables of predictions from several views, of likelihood estimates, and of drawn experts."""

import math

import numpy as np

from experiments.results.markdown import mean_and_spread, significant, table
from experiments.results.records import Record, Row
from experiments.views import METHODS

SCALES = {"fixed": "fixed", "learned": "trained"}
MEASURES = {"r2": "$R^2$", "accuracy": "accuracy"}
MODELS = {"polymnist": "PolyMNIST", "factors": "table `factors`", "digits": "PolyDigits"}
#: Diagnostic of each estimate besides the effective sample size.
QUALITY = {"importance": "pareto_k", "annealing": "acceptance"}
#: Shares of the time after which the table of drawn experts has bounds.
PARTS = (0.25, 0.5, 0.75, 1.0)


def views(record: Record) -> str:
    """Returns the mean of each method over views and seeds, by table, measure and scale."""
    header = (
        *("table", "measure", "scale", "best single", "`mixture`, all", "`importance`, all"),
        *("linear, all", "`importance` ahead"),
    )
    kinds = dict.fromkeys((row["table"], row["measure"], row["scale"]) for row in record.rows)
    rows = []
    for name, measure, scale in sorted(
        kinds, key=lambda kind: list(kinds).index((*kind[:2], "fixed"))
    ):
        own = [
            row
            for row in record.rows
            if (row["table"], row["measure"], row["scale"]) == (name, measure, scale)
        ]
        scores = {m: np.array([row["score"] for row in own if row["method"] == m]) for m in METHODS}
        best = max(scores["mixture"].mean(), scores["importance"].mean())
        cells = (_bold(scores[m].mean(), best, m) for m in METHODS)
        ahead = scores["importance"] > scores["mixture"]
        rows.append(
            (
                f"`{name}`",
                MEASURES[measure],
                SCALES[scale],
                *cells,
                f"{ahead.sum()} of {len(ahead)}",
            )
        )
    return table(header, rows)


def _bold(mean: float, best: float, method: str) -> str:
    """Returns a mean, bold if it is that of the better weighting."""
    is_best = method in ("mixture", "importance") and mean == best
    return f"**{mean:.3f}**" if is_best else f"{mean:.3f}"


def certificates(record: Record) -> str:
    """Returns the estimates of every model side by side, and the gaps on simulated data."""
    measured = [row for row in record.rows if "method" in row]  # not the runs that they measure
    models = list(dict.fromkeys(row["model"] for row in measured))
    columns = ("nats", "`ess`", "k-hat or acceptance", "seconds")
    header = ["estimate"]
    for model in models:
        first, *others = columns
        header += [f"{MODELS[model.split(',')[0]]}: {first}", *others]  # without the run's folder
    rows = []
    for method, size in dict.fromkeys((row["method"], row["size"]) for row in measured):
        cells = []
        for model in models:
            found = [
                row
                for row in measured
                if (row["model"], row["method"], row["size"]) == (model, method, size)
            ]
            cells += _estimate(found[0]) if found else [""] * len(columns)
        rows.append((_title(method, size), *cells))
    return table(header, rows)


def _title(method: str, size: int) -> str:
    if method == "importance":
        return f"importance sampling, $K = {size}$"
    title = "annealing" if method == "annealing" else "gap of both bounds on simulated data"
    return f"{title}, {size} temperatures"


def _estimate(row: Row) -> list[str]:
    """Returns nats, effective sample size, quality and seconds of an estimate."""
    if "gap" in row:
        cells = [f"{row['gap']:.2f} (largest {row['largest_gap']:.2f})", "", ""]
    else:
        quality = row[QUALITY[row["method"]]]
        shown = "inf" if quality is None else f"{quality:.2f}"
        cells = [f"{row['nll']:.1f}", f"{row['ess']:.1f}", shown]
    return [*cells, f"{row['seconds']:.0f}"]


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


def class_sums(record: Record) -> str:
    """Returns the sum of the estimated probabilities of all classes, by share of the prior."""
    header = ("share", "sum and its standard error", "spread over keys", "`ess`", "median k-hat")
    rows = []
    for row in record.rows:
        mean = f"{row['sum']:.3f} ± {row['standard_error']:.3f}"
        cells = (f"{row['spread']:.3f}", f"{row['ess']:.0f}", f"{row['pareto_k']:.2f}")
        rows.append((f"{row['share']:g}", mean, *cells))
    return table(header, rows)


def _variance(row: Row) -> str:
    """Returns the variance of one weight, which has none without a share."""
    return significant(row["K"] * row["variance"], 2) if row["share"] else "infinite"


def experts_drawn(record: Record) -> str:
    """Returns steps and test bounds by time, means and spreads over seeds."""
    known = sorted({row["seconds"] for row in record.rows})
    times = sorted({known[math.ceil(part * len(known)) - 1] for part in PARTS})
    end = known[-1]
    header = (
        "experts per step",
        "ms per step",
        f"steps in {end:g} s",
        *(f"bound after {t:g} s" for t in times),
    )
    rows = []
    for experts in dict.fromkeys(row["experts"] for row in record.rows):
        own = [row for row in record.rows if row["experts"] == experts]
        last = [row for row in own if row["seconds"] == end]
        step = np.mean([1e3 * row["train_seconds"] / row["num_steps"] for row in last])
        steps = np.mean([row["num_steps"] for row in last])
        bounds = (
            mean_and_spread([row["test_bound"] for row in own if row["seconds"] == t], 0)
            for t in times
        )
        rows.append((str(experts), f"{step:.0f}", f"{steps:.0f}", *bounds))
    return table(header, rows)
