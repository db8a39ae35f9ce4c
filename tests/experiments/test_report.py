"""Results of many runs as one table."""

import doctest
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from experiments import report, runs
from experiments.published_values import PUBLISHED, PublishedValue, published_for
from experiments.report import COLUMNS, ReportConfig, load_runs, main, metric, row, table

ROOT = Path(__file__).parents[2]
VERSIONS = {"mmvae_jax": "0.1.0", "jax": "0.10.2"}


def metrics(seed: int = 0, *, experiment="digits", preset="default", **fields) -> dict[str, Any]:
    """Content of a metrics.json; ``fields`` replace settings of the same name, or metrics."""
    config = {"loss": "dreg_looser", "K": 30, "seed": seed}
    config |= {name: fields.pop(name) for name in [*config] if name in fields}
    results = {
        "experiment": experiment,
        "preset": preset,
        "config": config,
        "test_bound": -812.34,
        "conditional_coherence": 0.77,
        "classifier_accuracy": {"mnist": 0.99, "svhn": 0.93},
        "versions": VERSIONS,
        "device": "cpu",
    }
    return results | fields


def write(folder: Path, content: Any) -> Path:
    folder.mkdir(parents=True)
    file = folder / runs.METRICS_FILE
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def rows(text: str) -> list[dict[str, str]]:
    """Returns the rows of a Markdown table, by column."""
    lines = text.split("\n\n")[0].splitlines()
    # A pipe after a backslash does not end a cell.
    cells = [[x.strip() for x in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    header, rule, *body = cells
    assert rule == ["---"] * len(header)
    return [dict(zip(header, values, strict=True)) for values in body]


def test_means_and_spreads_of_seeds():
    likelihoods = [{"joint": {"mean": mean, "standard_error": 9.0}} for mean in (-800.0, -801.0)]
    (found,) = rows(
        table(
            [
                metrics(0, test_bound=-812.3, joint_coherence=0.40, log_likelihood=likelihoods[0]),
                metrics(1, test_bound=-810.1, joint_coherence=0.45, log_likelihood=likelihoods[1]),
                metrics(2, test_bound=-815.0, joint_coherence=0.47, log_likelihood=None),
            ]
        )
    )
    assert found == {
        "experiment": "digits default",
        "seeds": "3",
        # The squares of 1/6, 71/30 and -76/30 add up to 12.0467, those of -.04, .01, .03 to .0026;
        # half of that is the variance of a sample of three.
        "bound, nats": "-812.5 +- 2.5",
        "log p(X), nats": "-800.5 +- 0.7 (2 of 3)",
        "conditional coherence": "0.770 +- 0.000",
        "joint coherence": "0.440 +- 0.036",
        "classifiers on real examples": "0.960 +- 0.000",
    }


def test_one_seed_has_no_spread():
    (found,) = rows(table([metrics(7, latent_probe=0.8)]))
    assert (found["seeds"], found["latent probe"]) == ("1", "0.800")


def test_a_diverged_seed_shows():
    (found,) = rows(table([metrics(0), metrics(1, test_bound=float("-inf"))]))
    assert found["bound, nats"] == "-inf +- nan"


def test_runs_without_classes_have_no_coherence():
    without = metrics(1, classifier_accuracy={}, conditional_coherence=None)
    (found,) = rows(table([without]))
    assert not {"conditional coherence", "classifiers on real examples"} & set(found)
    (found,) = rows(table([metrics(0), without]))
    assert found["conditional coherence"] == "0.770 (1 of 2)"


def test_a_row_shows_the_settings_that_differ_in_its_experiment():
    found = rows(
        table(
            [
                metrics(0, loss="stl_looser"),
                metrics(0, experiment="cub", preset="paper", K=1),
                metrics(0),
                metrics(1, loss="stl_looser"),
                metrics(0, preset="small"),
            ]
        )
    )
    assert [(x["experiment"], x["seeds"]) for x in found] == [
        ("cub paper", "1"),
        ("digits default, `loss=stl_looser`", "2"),
        ("digits default, `loss=dreg_looser`", "1"),
        ("digits small, `loss=dreg_looser`", "1"),
    ]


def test_settings_that_one_run_lacks_and_odd_text():
    older = metrics()
    del older["config"]["K"]
    found = rows(table([older, metrics(loss="a|b")]))
    labels = [x["experiment"] for x in found]
    assert labels == ["digits default, `loss=dreg_looser`", r"digits default, `loss=a\|b`, `K=30`"]


def test_published_values_stand_below_the_rows_of_their_preset():
    pairs = {"mnist": {"mnist": 0.95, "svhn": 0.86}, "svhn": {"mnist": 0.7, "svhn": 0.8}}
    measured = metrics(
        experiment="mnist_svhn",
        preset="paper",
        conditional_coherence_pairs=pairs,
        latent_probe_modalities={"mnist": 0.91, "svhn": 0.68},
    )
    other = {**measured, "config": {**measured["config"], "K": 1}}
    small = {**measured, "preset": "small"}
    found = rows(table([small, measured, other]))
    assert [x["experiment"] for x in found] == [
        "mnist_svhn paper, `K=30`",
        "mnist_svhn paper, `K=1`",
        "published: Shi et al. 2019, Tables 2 and 3",
        "published: MultiVae's README, its reproduction",
        "mnist_svhn small, `K=30`",
    ]
    extra = [*found[0]][-4:]
    assert extra == [
        "conditional coherence, mnist to svhn",
        "conditional coherence, svhn to mnist",
        "latent probe, mnist",
        "latent probe, svhn",
    ]
    assert [found[0][name] for name in extra] == ["0.860", "0.700", "0.910", "0.680"]
    assert [found[2][name] for name in extra] == ["0.864", "0.691", "0.913", "0.68"]
    assert found[2]["joint coherence"] == "0.421"
    assert found[2]["seeds"] == found[2]["bound, nats"] == ""
    assert [found[3][name] for name in extra] == ["0.88", "0.67", "", ""]


def test_every_source_has_its_row(monkeypatch):
    values = [("joint_coherence", 0.2, "A"), ("latent_probe", 0.3, "B"), ("test_bound", -9.5, "A")]
    published = tuple(PublishedValue("digits", "default", *value) for value in values)
    monkeypatch.setattr("experiments.published_values.PUBLISHED", published)
    _, a, b = rows(table([metrics()]))
    columns = ("experiment", "joint coherence", "latent probe", "bound, nats")
    assert [a[name] for name in columns] == ["published: A", "0.2", "", "-9.5"]
    assert [b[name] for name in columns] == ["published: B", "", "0.3", ""]


def test_no_value_is_published_twice():
    names = [(p.experiment, p.preset, p.metric, p.source) for p in PUBLISHED]
    assert len(set(names)) == len(names)


def test_values_are_published_for_presets_that_exist():
    for p in PUBLISHED:
        assert p.preset in import_module(f"experiments.{p.experiment}").PRESETS


def test_published_values_are_those_of_the_experiment_and_the_preset():
    found = published_for("polymnist", "mmvae")
    values = {"conditional_coherence": 0.844, "joint_coherence": 0.232}
    assert {p.metric: p.value for p in found} == values
    assert len(found) == 2
    assert published_for("mnist_svhn", "small") == ()  # another preset of a published experiment


def test_the_note_has_devices_and_versions():
    newer = metrics(1, versions={**VERSIONS, "jax": "0.12.0"}, device="NVIDIA H100")
    assert table([metrics(0), newer]).endswith(
        "\n\nMean +- sample standard deviation over seeds. Computed on cpu, NVIDIA H100 with "
        "mmvae_jax 0.1.0; jax 0.10.2, 0.12.0."
    )


def test_a_row_is_that_of_the_table():
    group = [metrics(0), metrics(1)]
    columns = {path: title for path, title in COLUMNS.items() if metric(group[0], path) is not None}
    assert row(group, columns) == table(group).splitlines()[2]


def test_runs_are_found_below_their_folders_and_once(tmp_path):
    written = [write(tmp_path / f"stl/seed{seed}", metrics(seed)) for seed in range(2)]
    written.append(write(tmp_path / "one", metrics(K=1)))
    (tmp_path / "stl/seed2").mkdir()  # not finished
    again = tmp_path / "one/../stl/seed1"
    found = load_runs([tmp_path / "stl", tmp_path / "one", again])
    assert [run.file.resolve() for run in found] == written
    assert [run.metrics["config"]["seed"] for run in found] == [0, 1, 0]


def test_a_folder_without_runs_is_named(tmp_path):
    write(tmp_path / "run", metrics())
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        with pytest.raises(ValueError, match=rf"{name}, which has no metrics\.json"):
            load_runs([tmp_path / "run", tmp_path / name])
    with pytest.raises(ValueError, match=r"dirs is \(\)"):
        load_runs([])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"experiment": ', r"is damaged \(Expecting value"),
        ("[]", "is damaged"),
        ({**metrics(), "config": None}, "has config None"),
        ({k: v for k, v in metrics().items() if k != "preset"}, "has preset None"),
        ({**metrics(), "config": {"K": 1}}, "has seed None in its config"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, message):
    file = write(tmp_path / "run", content)
    with pytest.raises(ValueError, match=message) as error:
        load_runs([tmp_path])
    assert str(file) in str(error.value)
    assert "delete it and start its run again with --resume" in str(error.value)


def test_a_seed_counts_once(tmp_path):
    files = [write(tmp_path / name, metrics(3, test_bound=n)) for n, name in enumerate("ab")]
    write(tmp_path / "c", metrics(3, K=1))  # another setting
    with pytest.raises(ValueError, match="same seed, 3") as error:
        load_runs([tmp_path])
    assert all(str(file) in str(error.value) for file in files)


def test_an_existing_file_stays(tmp_path, capsys):
    write(tmp_path / "run", metrics())
    out = tmp_path / "results.md"
    out.write_text("mine")
    with pytest.raises(FileExistsError, match=r"out is .*results\.md"):
        main(ReportConfig(dirs=(tmp_path / "run",), out=out))
    assert out.read_text() == "mine"
    assert capsys.readouterr().out == ""


def test_it_starts_without_jax():
    check = "import sys, experiments.report; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0


def test_examples_in_docstrings():
    results = doctest.testmod(report)
    assert results.attempted >= 3
    assert results.failed == 0


def test_from_the_command_line(tmp_path):
    found = [metrics(seed, test_bound=-810.0 - seed) for seed in range(2)]
    for content in found:
        write(tmp_path / f"runs/seed{content['config']['seed']}", content)

    def command(*arguments) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "experiments.report", *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    done = command("runs", "--out", "results.md")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "results.md").read_text() == table(found) + "\n"
    assert "| digits default | 2 | -810.5 +- 0.7 |" in done.stdout
    failed = command("runs", "elsewhere")
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: dirs has elsewhere, which has no metrics.json")
    assert "Traceback" not in failed.stderr
