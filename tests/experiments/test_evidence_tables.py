"""Tables of views, certificates and drawn experts, from rows whose numbers are known."""

from experiments.results import evidence_tables
from experiments.results.records import Record


def lines(make, rows):
    """Returns the cells of the table of these rows, without the line below the header."""
    found = make(Record("name", [], "0123456", "2026-01-01", None, "CPU", {}, rows))
    header, _, *body = found.splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, *body)]


def test_views_stand_with_fixed_and_trained_scales_together():
    """The better weighting is bold, and the last column counts views and seeds."""
    scores = {"best single": 0.5, "mixture": 0.4, "importance": 0.6, "linear": 0.7}
    rows = [
        {"table": "t", "measure": m, "scale": scale, "method": name, "score": x + shift}
        for scale, m in (("fixed", "r2"), ("fixed", "accuracy"), ("learned", "r2"))
        for shift in (0.0, 0.1)
        for name, x in scores.items()
    ]
    _, *body = lines(evidence_tables.views, rows)
    assert [row[:3] for row in body] == [
        ["`t`", "$R^2$", "fixed"],
        ["`t`", "$R^2$", "trained"],
        ["`t`", "accuracy", "fixed"],
    ]
    assert body[0][3:] == ["0.550", "0.450", "**0.650**", "0.750", "2 of 2"]


def test_certificates_stand_side_by_side():
    shared = {"seed": 0, "num_examples": 8}
    rows = [
        {**shared, "model": "factors", "method": "importance", "size": 1000}
        | {"nll": 50.04, "ess": 2.0, "pareto_k": 0.9, "unreliable": 1.0, "seconds": 3.0},
        {**shared, "model": "digits", "method": "importance", "size": 1000}
        | {"nll": -9.0, "ess": 1.0, "pareto_k": None, "unreliable": 1.0, "seconds": 4.4},
        {**shared, "model": "factors", "method": "annealing", "size": 50}
        | {"nll": 48.0, "ess": 5.0, "acceptance": 0.65, "seconds": 10.0},
        {**shared, "model": "factors", "method": "both sides", "size": 50}
        | {"lower": 1.0, "upper": 2.0, "gap": 1.0, "largest_gap": 3.0, "seconds": 20.0},
    ]
    header, importance, annealing, gap = lines(evidence_tables.certificates, rows)
    assert header[1] == "table `factors`: nats"
    assert header[5] == "PolyDigits: nats"
    assert importance[1:] == ["50.0", "2.0", "0.90", "3", "-9.0", "1.0", "inf", "4"]
    assert annealing[1:] == ["48.0", "5.0", "0.65", "10", "", "", "", ""]
    assert gap[1] == "1.00 (largest 3.00)"


def test_bounds_of_drawn_experts_at_four_times():
    rows = [
        {"experts": 5, "seed": seed, "seconds": 10.0 * i, "num_steps": 20 * i}
        | {"train_seconds": 10.0 * i, "test_bound": -100.0 + i + 2 * seed}
        for i in range(1, 9)
        for seed in (0, 1)
    ]
    header, row = lines(evidence_tables.experts_drawn, rows)
    assert header[1:4] == ["ms per step", "steps in 80 s", "bound after 20 s"]
    assert header[4:] == ["bound after 40 s", "bound after 60 s", "bound after 80 s"]
    assert row[:4] == ["5", "500", "160", "-97 ± 1"]


def test_sums_of_probabilities_have_their_errors():
    row = {"share": 0.05, "sum": 0.9941, "standard_error": 0.0063, "spread": 0.02}
    _, cells = lines(evidence_tables.class_sums, [{**row, "ess": 82.8, "pareto_k": 0.534}])
    assert cells == ["0.05", "0.994 ± 0.006", "0.020", "83", "0.53"]
