"""The command that trains classifiers: its files, what it prints, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.official_files import write_mnist

from experiments import runs
from experiments.train_classifiers import DATASETS, Config, command_line, main
from mmvae_jax.data.polydigits import polydigits
from mmvae_jax.metrics.classifier import load_classifier, load_classifiers

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_mnist(folder / "mnist")
    return folder


def test_files_and_print_tell_the_accuracy_on_unseen_examples(data_dir, tmp_path):
    out = tmp_path / "classifiers"
    arguments = ("--dataset", "mnist", "--data-dir", data_dir, "--out", out, "--num-steps", 4)
    command = [sys.executable, "-m", "experiments.train_classifiers", *map(str, arguments)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert {path.name for path in out.iterdir()} == {"image.npz", "accuracy.json"}
    test = DATASETS["mnist"](data_dir).test
    accuracy = load_classifier(out / "image.npz").accuracy(test.data["image"], test.labels)
    told = json.loads((out / "accuracy.json").read_text())
    assert told["accuracy"] == {"image": accuracy}
    assert told["num_test"] == len(test.labels)
    assert ["image", f"{accuracy:.4f}"] in [line.split()[:2] for line in run.stdout.splitlines()]


def test_every_modality_gets_its_own(tmp_path):
    accuracy = main(Config(dataset="polydigits", out=tmp_path, num_steps=60))
    test = polydigits(5, num_pairings=1, text=True).test
    classifiers = load_classifiers(tmp_path, {name: x.shape[1:] for name, x in test.data.items()})
    assert accuracy == {
        name: who.accuracy(test.data[name], test.labels) for name, who in classifiers.items()
    }
    assert [*accuracy] == ["m0", "m1", "m2", "m3", "m4", "word"]
    assert min(accuracy.values()) > 0.3  # chance is 0.1, with a standard deviation of 0.02


def test_a_folder_that_holds_something_stays(tmp_path, monkeypatch):
    (tmp_path / "notes").write_text("keep")
    arguments = ["--dataset", "mnist", "--out", str(tmp_path), "--data-dir", "nowhere"]
    monkeypatch.setattr(sys, "argv", ["train_classifiers", *arguments])
    monkeypatch.setattr(runs, "keep_compiled", lambda: None)  # it is of the whole process
    with pytest.raises(SystemExit, match=r"^error: out is .* which holds something: choose a new"):
        command_line()
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_the_seed_decides(data_dir, tmp_path):
    for seed in (1, 2):
        out = tmp_path / str(seed)
        main(Config(dataset="mnist", data_dir=data_dir, out=out, num_steps=1, seed=seed))
    first, second = ((tmp_path / seed / "image.npz").read_bytes() for seed in "12")
    assert first != second


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0"),
        ({"seed": -1}, "seed is -1: give an integer of at least 0"),
        ({"dataset": "cifar"}, "dataset is 'cifar': choose one of"),
        ({"dataset": "polydigits"}, "made from installed files: leave it out"),
        ({"data_dir": Path("nowhere")}, "nowhere"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(data_dir, tmp_path, changes, message):
    settings = {"dataset": "mnist", "data_dir": data_dir, "out": tmp_path / "out"} | changes
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        main(Config(**settings))
    assert not (tmp_path / "out").exists()
