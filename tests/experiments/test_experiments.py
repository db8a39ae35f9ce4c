"""The experiments on small files in the official formats: results, seeds and errors."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.figure_checks import FIGURES
from helpers.official_files import write_birds, write_mnist, write_polymnist, write_svhn
from helpers.stopped_runs import stoppable_fit

import mmvae_jax as mm
from experiments import (
    coherence_measurements,
    cub,
    digits,
    figures,
    image_measurements,
    measurements,
    mnist_pairs,
    mnist_scenes,
    mnist_svhn,
    mnist_svhn_text,
    polymnist,
    report,
    run_experiment,
    runs,
)
from experiments.experiment import Experiment
from mmvae_jax import plots
from mmvae_jax.metrics import classifier, train_classifier

FILES = FIGURES | {"metrics.json", "history.jsonl", "checkpoints"}
#: Metrics of every experiment, metrics of those with classes, and metadata of a run.
ALWAYS = {"test_bound", "active_units", "divergence", "reconstruction", "log_likelihood"}
OF_CLASSES = {
    "classifier_accuracy",
    "conditional_coherence",
    "conditional_coherence_macro",
    "conditional_coherence_pairs",
    "conditional_coherence_by_size",
    "conditional_coherence_subsets",
    "joint_coherence",
    "joint_coherence_effective_classes",
    "joint_coherence_macro",
    "latent_probe",
    "latent_probe_modalities",
    "clustering_accuracy",
    "frechet_classifier",
}
METADATA = {"experiment", "preset", "steps", "config", "versions", "device", "seconds"}

#: The smallest possible run.
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
    "num_particles": 30,  # fewer have no Pareto k-hat
}
#: Settings of a run by name.
RUNS = {
    "polymnist": dataclasses.replace(polymnist.PRESETS["small"][1], **SMALL, modalities=2),
    "resnet": dataclasses.replace(polymnist.PRESETS["mmvae"][1], **{**SMALL, "K": 1}, modalities=2),
    "cmvae": dataclasses.replace(
        polymnist.PRESETS["cmvae"][1],
        **{**SMALL, "K": 1},
        modalities=2,
        networks="mlp",
        modalities_specific_dim=2,
        number_of_clusters=3,
    ),
    "mnist_svhn": dataclasses.replace(mnist_svhn.PRESETS["small"][1], **SMALL),
    "mnist_svhn_text": dataclasses.replace(
        mnist_svhn_text.PRESETS["mopoe"][1], **{**SMALL, "K": 1}, pairings=1
    ),
    "mnist_scenes": dataclasses.replace(mnist_scenes.PRESETS["small"][1], **SMALL),
    "mnist_pairs": mnist_pairs.MNISTPairsConfig(**SMALL, hidden=8),
    "cub": dataclasses.replace(cub.PRESETS["small"][1], **SMALL),
}
#: The cheapest experiment.
DIGITS = digits.DigitsConfig(**SMALL | {"num_likelihood": 0}, modalities=2, hidden=(8,), pairings=1)
#: Other models of the cheapest experiment.
RUNS |= {
    "mmvaeplus": dataclasses.replace(DIGITS, modalities_specific_dim=2, num_likelihood=8),
    **{
        kind: dataclasses.replace(DIGITS, aggregation=kind, posterior="normal", num_likelihood=8)
        for kind in ("poe", "mopoe")
    },
}


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    """Small batches, no t-SNE, and no change of the compilation cache."""
    with pytest.MonkeyPatch.context() as patch:
        measuring = (measurements, image_measurements, coherence_measurements)
        for module in (*measuring, figures, cub, classifier):  # every one that reads CHUNK
            patch.setattr(module, "CHUNK", 16)
        patch.setattr(plots, "project_2d", lambda z: z[:, :2])
        patch.setattr(runs, "use_compilation_cache", lambda: None)
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
    """Folders by experiment, with classifiers after one training step."""
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
    """A function that returns settings by name, with folders of data and classifiers."""

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
    """Returns all numbers in a JSON value."""
    if isinstance(values, dict):
        return [x for value in values.values() for x in numbers(value)]
    return [] if values is None else [values]  # k-hat of few particles is null


def assert_is_complete(out: Path, config: Experiment, modalities: list[str]) -> None:
    """Checks that a run has every file and every metric, and that the metrics are finite."""
    assert {path.name for path in out.iterdir()} == FILES
    for name in FIGURES:
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["experiment"], metrics["preset"]) == (config.name, config.preset)
    assert metrics["steps"] == 2
    assert metrics["config"] == json.loads(json.dumps(config.settings()))
    measured = {name: value for name, value in metrics.items() if name not in METADATA}
    has_clusters = config.model_config().number_of_clusters > 1
    of_data = OF_CLASSES if config.num_classes else {"correlation"}
    assert set(measured) == ALWAYS | of_data | ({"prior_clusters"} if has_clusters else set())
    assert np.isfinite(numbers(measured)).all()
    assert [*measured["active_units"]] == modalities
    targets = {*modalities} if has_clusters else {*modalities, "prior"}
    others = {name: targets - {name} for name in modalities}
    assert {name: {*row} for name, row in measured["divergence"].items()} == others
    likelihood = measured["log_likelihood"]
    assert [*likelihood["marginal"]] == modalities
    assert (likelihood["num_examples"], likelihood["K"]) == (8, 30)
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
        ("cub", ["image", "caption"]),
        ("resnet", ["m0", "m1"]),
        ("cmvae", ["m0", "m1"]),
        ("mnist_svhn_text", ["mnist", "svhn", "text"]),
        ("mnist_pairs", ["m0", "m1"]),
        ("mmvaeplus", ["m0", "m1"]),
        ("poe", ["m0", "m1"]),
        ("mopoe", ["m0", "m1"]),
    ],
)
@pytest.mark.slow
def test_a_run_leaves_its_results(name, modalities, prepare, capsys):
    config = prepare(name)
    (returned,) = run_experiment.main(config)
    assert_is_complete(config.out, config, modalities)
    assert returned == json.loads((config.out / "metrics.json").read_text())
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("2 steps, ")
    assert printed[-len(FILES) :] == [str(path) for path in sorted(config.out.iterdir())]


@pytest.mark.parametrize(
    ("module", "modalities"),
    [(mnist_svhn, ["mnist", "svhn"]), (mnist_scenes, ["mnist", "scene"])],
    ids=["mnist_svhn", "mnist_scenes"],
)
@pytest.mark.slow
def test_a_run_of_a_preset_from_the_command_line(module, modalities, prepare, monkeypatch, capsys):
    config = prepare(module.PRESETS["small"][1].name)
    places = {"data_dir": config.data_dir, "classifiers": config.classifiers, "out": config.out}
    flags = [f"--{field.replace('_', '-')}={value}" for field, value in (SMALL | places).items()]
    monkeypatch.setattr(sys, "argv", ["experiment", "small", *flags])
    run_experiment.run_from_command_line(module.PRESETS)
    assert_is_complete(config.out, config, modalities)
    printed = capsys.readouterr().out
    assert "joint log-likelihood, nats" in printed
    assert str(config.out / "metrics.json") in printed.splitlines()


@pytest.mark.slow
def test_seeds_are_separate_runs_that_can_be_resumed(prepare, tmp_path, monkeypatch, capsys):
    config = prepare("digits", seeds=(0, 1))
    seeds = [config.out / "seed0", config.out / "seed1"]
    fit = mm.fit
    killed_before, started = stoppable_fit(lambda options: options["seed"])

    monkeypatch.setattr(mm, "fit", killed_before(1))
    with pytest.raises(KeyboardInterrupt):
        run_experiment.main(config)
    first = contents(config.out)
    assert {path.name for path in config.out.iterdir()} == {"seed0"}

    resumed = dataclasses.replace(config, resume=True)
    monkeypatch.setattr(mm, "fit", killed_before(2))
    both = run_experiment.main(resumed)
    assert started == [0, 1]
    assert [metrics["config"]["seed"] for metrics in both] == [0, 1]
    assert both == [json.loads((seed / "metrics.json").read_text()) for seed in seeds]
    assert both[0]["test_bound"] != both[1]["test_bound"]
    after = contents(config.out)
    assert {path: after[path] for path in first} == first
    assert "| digits default | 2 | " in capsys.readouterr().out

    assert run_experiment.main(resumed) == both  # finished runs are only printed
    assert contents(config.out) == after
    assert "| digits default | 2 | " in capsys.readouterr().out

    with pytest.raises(ValueError, match=r"out is .*seed0, which is not empty"):
        run_experiment.main(config)
    with pytest.raises(ValueError, match=r"run\.K: 2 there, 3 now"):
        run_experiment.main(dataclasses.replace(resumed, K=3))
    assert contents(config.out) == after

    monkeypatch.setattr(mm, "fit", fit)
    (single,) = run_experiment.main(prepare("digits", seed=1, out=tmp_path / "single"))
    assert {**single, "seconds": None} == {**both[1], "seconds": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resume": True}, "resume is True"),
        ({"resume": True, "seeds": (0, 1)}, "resume is True"),
        ({"classifiers": Path("nowhere")}, "folder is 'nowhere', without"),
        ({"inception": Path("nowhere.npz")}, r"nowhere\.npz"),
    ],
)
def test_mistakes_stop_a_run_before_it_starts(monkeypatch, changes, message, tmp_path):
    monkeypatch.setattr(run_experiment, "compute_run", lambda config: pytest.fail("was started"))
    config = dataclasses.replace(DIGITS, out=tmp_path / "run", **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_experiment.main(config)
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("settings", "preset", "message"),
    [
        (polymnist.PRESETS, ["small"], "lacks PolyMNIST"),
        (mnist_svhn.PRESETS, ["paper"], r"lacks mnist/train-images-idx3-ubyte\.gz"),
        (mnist_scenes.PRESETS, ["paper"], r"lacks mnist/train-images-idx3-ubyte\.gz"),
        (mnist_svhn_text.PRESETS, ["mopoe"], r"lacks mnist/train-images-idx3-ubyte\.gz"),
        (mnist_pairs.MNISTPairsConfig, [], r"lacks mnist/train-images-idx3-ubyte\.gz"),
        (cub.PRESETS, ["small"], "lacks CUB"),
    ],
)
def test_missing_data_end_the_command_with_a_message(
    settings, preset, message, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    places = ["--data-dir", str(tmp_path), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["experiment", *preset, *places])
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        run_experiment.run_from_command_line(settings)
    assert not out.exists()
