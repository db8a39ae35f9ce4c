"""Tables of times and of losses, from rows like those that the studies write."""

from experiments.results import gpu_tables, speed_tables, training_tables
from experiments.results.records import Record


def record(*rows):
    return Record("study", [], "0123456", "2026-11-26", 1.0, "cpu", {}, list(rows))


def cells(text):
    """Returns the cells of the rows below the header of a Markdown table."""
    return [[x.strip() for x in line.split("|")[1:-1]] for line in text.splitlines()[2:]]


def contest(**fields):
    """Returns a row of the benchmark: 0.1 s of ours against 0.25 s of another contender."""

    def side(seconds, peak):
        times = {"median": seconds, "min": seconds / 2, "max": 2 * seconds}
        return {"seconds": times, "peak_resident_bytes": peak}

    shares = {"backward_share": 0.25, "product_fraction": 0.5, "compile_seconds": 3.0}
    ratios = {"times_as_fast": 2.5, "times_as_fast_at_best": 2.0, "train_steps": 0}
    row = {"case": "two_mlp", "task": "step", **shares, **ratios, **side(0.1, 1e9), **fields}
    return row | {"against": side(0.25, 2e9)}


def test_contests_have_times_ratios_and_peaks():
    nll = contest(task="nll", backward_share=None, product_fraction=None)
    first, second = cells(speed_tables.against_multivae(record(contest(), nll)))
    assert first == [
        *("two_mlp, random", "250 ms (125 to 500)", "100 ms (50.0 to 200)"),
        *("2.5", "2.0", "1.00 / 2.00 GB", "25%", "50%"),
    ]
    assert second[0] == "two_mlp, joint likelihood"
    assert second[6:8] == ["", ""]


def test_ratios_of_steps():
    rows = [contest(), contest(times_as_fast=0.9), contest(times_as_fast=9.0, task="nll")]
    assert speed_tables.range_against_multivae(record(*rows)) == "0.9 to 2.5"
    assert speed_tables.ratio(record(contest())) == "0.400"


def test_steps_beside_the_dense_step():
    digits = contest(scale=0.75, train_steps=100)
    (row,) = cells(speed_tables.against_dense(record(digits)))
    assert row == [
        *("two_mlp, digits", "0.75", "25%", "100 ms", "250 ms", "0.40", "50%", "1.00 / 2.00 GB")
    ]
    (row,) = cells(speed_tables.small_steps(record(contest(K=10, batch=4))))
    assert row == ["80", "100 ms", "250 ms", "0.40"]


def test_start_up_times_are_medians_over_repetitions():
    rows = [
        {
            **{"case": "two_mlp", "cache": "empty", "peak_bytes": 1e9},
            "seconds": {"import": 2.0, "model": 3.0, "first step": first},
        }
        for first in (4.0, 5.0, 9.0)
    ]
    assert cells(speed_tables.startup(record(*rows))) == [
        ["two_mlp", "empty", "2.0 s", "3.0 s", "5.0 s", "1.00 GB"]
    ]


def test_losses_have_mean_and_spread_over_their_own_seeds():
    def run(loss, bound, experiment="digits"):
        metrics = dict.fromkeys(training_tables.METRICS, 0.5) | {"test_bound": bound}
        return {"experiment": experiment, "config": {"loss": loss}, **metrics}

    rows = [run("a", 1.0), run("a", 3.0), run("b", 5.0), run("b", 9.0, "mnist_pairs")]
    first, second = cells(training_tables.losses(record(*rows), "digits"))
    assert first[:3] == ["`a`", "2", "2.0 ± 1.4"]
    assert second[:3] == ["`b`", "1", "5.0"]


def test_diverged_runs_are_counted_and_left_out_of_the_mean():
    def run(data, bound, last):
        return {"data": data, "loss": "a", "test_bound": bound, "first_loss": 2, "last_loss": last}

    rows = [run("x", -10.0, 1), run("x", -12.0, 1), run("x", -1e5, 9), run("polymnist-0.2", 1, 9)]
    text = training_tables.stability(record(*rows))
    assert "PolyMNIST, scale 0.2" in text.splitlines()[0]
    assert cells(text) == [["`a`", "(1 of 3) -11.0 ± 1.4", "(1 of 1)"]]


def on_card(name, **fields):
    memory = {"peak_device_bytes": 3e9, "temp_bytes": 5e8}
    row = contest(K=30, batch=128, private=0, product_flops_per_second=371.9e12, **memory)
    return row | fields | {"against": {**row["against"], "name": name, "temp_bytes": 2e9}}


def test_steps_on_a_gpu_stand_beside_the_contender_of_their_table():
    rows = [on_card("multivae"), on_card("dense"), on_card("multivae", private=8, latent_dim=4)]
    for row in rows:
        row["against"]["peak_device_bytes"] = 1e9
    plain, plus = cells(gpu_tables.steps(record(*rows)))
    assert plain[0] == "two_mlp, K = 30, batch 128"
    assert plus[0] == "two_mlp, MMVAE+ 4 + 8, K = 30, batch 128"
    times = ["250 ms (125 to 500)", "100 ms (50.0 to 200)", "2.5"]
    assert plain[1:] == [*times, "1.00, 3.00 GB", "50.0%"]
    (sparse,) = cells(gpu_tables.sparse_steps(record(*rows)))
    assert sparse[1:] == ["25%", times[1], times[0], "0.40", "0.50, 2.00 GB"]
    assert gpu_tables.product_rate(record(*rows)) == "372 TFLOP/s"
