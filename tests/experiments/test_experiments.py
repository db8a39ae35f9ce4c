"""The experiments on small official files: what a run leaves, seeds and mistakes."""

import dataclasses
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.figure_checks import FIGURES
from helpers.official_files import write_birds, write_mnist, write_polymnist, write_svhn
from helpers.stopped_runs import stoppable_fit

import mmvae_jax as mm
from experiments import (
    conduct,
    cub,
    digits,
    figures,
    losses,
    measures,
    mnist_pairs,
    mnist_svhn,
    mnist_svhn_text,
    polymnist,
    report,
    runs,
)
from experiments.experiment import Experiment
from mmvae_jax import plots
from mmvae_jax.metrics import classifier
from mmvae_jax.metrics.classifier import train_classifier

ROOT = Path(__file__).parents[2]
FILES = FIGURES | {"metrics.json", "history.jsonl", "checkpoints"}
#: What every experiment measures, those that know classes, and what is said of the run.
ALWAYS = {"test_bound", "active_units", "divergence", "reconstruction", "log_likelihood"}
OF_CLASSES = {
    "classifier_accuracy",
    "conditional_coherence",
    "conditional_coherence_macro",
    "conditional_coherence_pairs",
    "conditional_coherence_by_size",
    "conditional_coherence_subsets",
    "joint_coherence",
    "joint_coherence_macro",
    "latent_probe",
    "latent_probe_modalities",
    "clustering_accuracy",
    "frechet_classifier",
}
TOLD = {"experiment", "preset", "steps", "config", "versions", "device", "seconds"}

#: As little as there can be.
SMALL = {
    "num_epochs": None,
    "num_steps": 2,
    "log_every": 1,
    "batch_size": 16,
    "latent_dim": 4,
    "K": 2,
    "num_test": 20,
    "num_samples": 20,
    "num_likelihood": 8,
    "num_particles": 5,
}
#: Settings of a run by name.
RUNS = {
    "polymnist": dataclasses.replace(polymnist.PRESETS["small"][1], **SMALL, modalities=2),
    "resnet": dataclasses.replace(
        polymnist.PRESETS["mmvaeplus"][1], **{**SMALL, "K": 1}, modalities=2
    ),
    "mnist_svhn": dataclasses.replace(mnist_svhn.PRESETS["small"][1], **SMALL),
    "mnist_svhn_text": dataclasses.replace(
        mnist_svhn_text.PRESETS["mopoe"][1], **{**SMALL, "K": 1}, pairings=1
    ),
    "mnist_pairs": mnist_pairs.Config(**SMALL, hidden=8),
    "cub": dataclasses.replace(cub.PRESETS["small"][1], **SMALL),
}
#: The cheapest experiment there is.
DIGITS = digits.Config(**SMALL | {"num_likelihood": 0}, modalities=2, hidden=(8,), pairings=1)


@pytest.fixture(scope="module", autouse=True)
def small_and_alone():
    """Few examples at a time, no t-SNE, and no folder of compiled programs outside the test's."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (measures, figures, cub, classifier):
            patch.setattr(module, "CHUNK", 16)
        patch.setattr(plots, "project_2d", lambda z: z[:, :2])
        patch.setattr(runs, "keep_compiled", lambda: None)
        yield


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_mnist(folder / "mnist")
    write_svhn(folder / "svhn")
    write_polymnist(folder / "polymnist")
    write_birds(folder / "cub")
    return folder


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory) -> Path:
    """Folders by experiment, with classifiers that have seen nothing."""
    folder = tmp_path_factory.mktemp("classifiers")
    for name, config in {**RUNS, "digits": DIGITS}.items():
        if config.num_classes:
            (folder / name).mkdir()
            for modality, dim in config.model_config().input_dims.items():
                x = np.zeros((10, *dim), np.float32)
                trained = train_classifier(
                    x, np.arange(10), num_classes=10, key=jax.random.key(0), num_steps=1
                )
                trained.save(folder / name / f"{modality}.npz")
    return folder


@pytest.fixture
def prepare(data_dir, classifiers, tmp_path):
    """Settings of `RUNS`, or those of digits, with all that they need."""

    def prepared(name: str, **changes) -> Experiment:
        config = {**RUNS, "digits": DIGITS}[name]
        places = {"data_dir": data_dir, "out": tmp_path / "run"}
        if config.num_classes:
            places["classifiers"] = classifiers / name
        return dataclasses.replace(config, **{**places, **changes})

    return prepared


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def numbers(values) -> list[float]:
    """All the numbers in what JSON can hold."""
    if isinstance(values, dict):
        return [x for value in values.values() for x in numbers(value)]
    return [values]


def run_command(*arguments) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )


def assert_is_complete(out: Path, config: Experiment, modalities: list[str]) -> None:
    """Every file and every metric under its name, and nothing that is not a number."""
    assert {path.name for path in out.iterdir()} == FILES
    for name in FIGURES:
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["experiment"], metrics["preset"]) == (config.name, config.preset)
    assert metrics["steps"] == 2
    assert metrics["config"] == json.loads(json.dumps(config.settings()))
    measured = {name: value for name, value in metrics.items() if name not in TOLD}
    assert set(measured) == ALWAYS | (OF_CLASSES if config.num_classes else {"correlation"})
    assert np.isfinite(numbers(measured)).all()
    assert [*measured["active_units"]] == modalities
    others = {name: {*modalities, "prior"} - {name} for name in modalities}
    assert {name: {*row} for name, row in measured["divergence"].items()} == others
    likelihood = measured["log_likelihood"]
    assert [*likelihood["marginal"]] == modalities
    assert (likelihood["num_examples"], likelihood["K"]) == (8, 5)
    images = [name for name in modalities if name not in ("text", "caption")]
    assert [*measured["reconstruction"]] == images
    if config.num_classes:
        assert [*measured["conditional_coherence_pairs"]] == modalities
        distances = measured["frechet_classifier"]
        assert {name: [*row] for name, row in distances.items()} == dict.fromkeys(
            ("prior", *modalities), images
        )
    header, _, row, *_ = report.table([metrics]).splitlines()
    assert row.startswith(f"| {config.name} {config.preset} | 1 | {metrics['test_bound']:.1f} | ")
    assert row.count("|") == header.count("|")


@pytest.mark.parametrize(
    ("name", "modalities"),
    [
        ("polymnist", ["m0", "m1"]),
        pytest.param("cub", ["image", "caption"], marks=pytest.mark.slow),
        pytest.param("resnet", ["m0", "m1"], marks=pytest.mark.slow),
        pytest.param("mnist_svhn_text", ["mnist", "svhn", "text"], marks=pytest.mark.slow),
        pytest.param("mnist_pairs", ["m0", "m1"], marks=pytest.mark.slow),
    ],
)
def test_a_run_leaves_its_results(name, modalities, prepare, capsys):
    config = prepare(name)
    (returned,) = conduct.main(config)
    assert_is_complete(config.out, config, modalities)
    assert returned == json.loads((config.out / "metrics.json").read_text())
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("2 steps, ")
    assert printed[-len(FILES) :] == [str(path) for path in sorted(config.out.iterdir())]


@pytest.mark.slow
def test_a_run_of_a_preset_from_the_command_line(prepare):
    config = prepare("mnist_svhn")
    places = {"data_dir": config.data_dir, "classifiers": config.classifiers, "out": config.out}
    arguments = [
        f"--{field.replace('_', '-')}={value}" for field, value in (SMALL | places).items()
    ]
    run = run_command("experiments.mnist_svhn", "small", *arguments)
    assert run.returncode == 0, run.stderr
    assert_is_complete(config.out, config, ["mnist", "svhn"])
    assert "joint log-likelihood, nats" in run.stdout
    assert str(config.out / "metrics.json") in run.stdout.splitlines()


@pytest.mark.slow
def test_seeds_are_runs_of_their_own_that_can_go_on(prepare, tmp_path, monkeypatch, capsys):
    config = prepare("digits", seeds=(0, 1))
    seeds = [config.out / "seed0", config.out / "seed1"]
    fit = mm.fit
    killed_before, started = stoppable_fit(lambda options: options["seed"])

    monkeypatch.setattr(mm, "fit", killed_before(1))
    with pytest.raises(KeyboardInterrupt):
        conduct.main(config)
    first = contents(config.out)
    assert {path.name for path in config.out.iterdir()} == {"seed0"}

    resumed = dataclasses.replace(config, resume=True)
    monkeypatch.setattr(mm, "fit", killed_before(2))
    both = conduct.main(resumed)
    assert started == [0, 1]
    assert [metrics["config"]["seed"] for metrics in both] == [0, 1]
    assert both == [json.loads((seed / "metrics.json").read_text()) for seed in seeds]
    assert both[0]["test_bound"] != both[1]["test_bound"]
    after = contents(config.out)
    assert {path: after[path] for path in first} == first
    assert "| digits default | 2 | " in capsys.readouterr().out

    assert conduct.main(resumed) == both  # finished: they are only shown again
    assert contents(config.out) == after
    assert "| digits default | 2 | " in capsys.readouterr().out

    with pytest.raises(ValueError, match=r"out is .*seed0, which is not empty.*--resume"):
        conduct.main(config)
    with pytest.raises(ValueError, match=r"run\.K: 2 there, 3 now"):
        conduct.main(dataclasses.replace(resumed, K=3))
    assert contents(config.out) == after

    monkeypatch.setattr(mm, "fit", fit)
    (alone,) = conduct.main(prepare("digits", seed=1, out=tmp_path / "alone"))
    assert {**alone, "seconds": None} == {**both[1], "seconds": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resume": True}, "resume is True, but out is .*run, which does not exist"),
        ({"resume": True, "seeds": (0, 1)}, "resume is True, but out is .*run, which does not"),
        ({"classifiers": Path("nowhere")}, r"nowhere lacks \['m0\.npz', 'm1\.npz'\]: run python"),
        ({"inception": Path("nowhere.npz")}, r"nowhere\.npz"),
    ],
)
def test_what_a_run_needs_is_looked_for_before_it_starts(prepare, monkeypatch, changes, message):
    monkeypatch.setattr(conduct, "run", lambda config: pytest.fail("was started"))
    config = prepare("digits", **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        conduct.main(config)
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("module", "preset", "message"),
    [
        (polymnist, "small", "lacks PolyMNIST, looked for in polymnist and .*make_polymnist"),
        (mnist_svhn, "paper", r"lacks mnist/train-images-idx3-ubyte\.gz and .*download it from"),
        (mnist_svhn_text, "mopoe", r"lacks mnist/train-images-idx3-ubyte\.gz"),
        (mnist_pairs, None, r"lacks mnist/train-images-idx3-ubyte\.gz"),
        (cub, "small", r"lacks CUB, looked for in cub: unzip .*cub\.zip.*put it into"),
        (losses, None, r"lacks mnist/train-images-idx3-ubyte\.gz"),
    ],
)
def test_missing_data_are_told_without_a_trace(module, preset, message, tmp_path, monkeypatch):
    out = tmp_path / "run"
    chosen = [] if preset is None else [preset]
    places = ["--data-dir", str(tmp_path), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["experiment", *chosen, *places])
    # What `python -m` does with the module.
    settings = getattr(module, "PRESETS", module.Config)
    start = partial(conduct.command_line, settings)
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        (losses.command_line if module is losses else start)()
    assert not out.exists()


def test_missing_data_end_the_command_with_code_1(tmp_path):
    out = tmp_path / "run"
    run = run_command("experiments.polymnist", "small", "--data-dir", tmp_path, "--out", out)
    assert run.returncode == 1
    assert run.stderr.startswith("error: ")
    assert "lacks PolyMNIST" in run.stderr
    assert "Traceback" not in run.stderr
    assert not out.exists()
