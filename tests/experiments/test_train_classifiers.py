"""The program that trains classifiers: its files, its output, and its errors."""

import json
from pathlib import Path

import pytest

from experiments.train_classifiers import DATASETS, ClassifiersConfig, main
from mmvae_jax.data import polydigits
from mmvae_jax.metrics import load_classifier, load_classifiers


@pytest.fixture(scope="module")
def out(data_dir, tmp_path_factory) -> Path:
    """Folder of a finished run with seed 0."""
    out = tmp_path_factory.mktemp("out") / "classifiers"
    main(ClassifiersConfig(dataset="mnist", data_dir=data_dir, out=out, num_steps=4))
    return out


@pytest.mark.slow
def test_files_hold_classifiers_and_their_test_accuracy(data_dir, out):
    assert {path.name for path in out.iterdir()} == {"image.npz", "accuracy.json"}
    test = DATASETS["mnist"](data_dir).test
    accuracy = load_classifier(out / "image.npz").accuracy(test.data["image"], test.labels)
    results = json.loads((out / "accuracy.json").read_text())
    assert results["accuracy"] == {"image": accuracy}
    assert results["num_test"] == len(test.labels)


@pytest.mark.slow
def test_the_seed_determines_the_classifier(data_dir, out, tmp_path):
    main(ClassifiersConfig(dataset="mnist", data_dir=data_dir, out=tmp_path, num_steps=4, seed=1))
    assert (tmp_path / "image.npz").read_bytes() != (out / "image.npz").read_bytes()


@pytest.mark.slow
def test_every_modality_has_its_classifier_and_a_printed_row(tmp_path, capsys):
    accuracy = main(ClassifiersConfig(dataset="polydigits", out=tmp_path, num_steps=60))
    test = polydigits(5, num_pairings=1, text=True).test
    classifiers = load_classifiers(tmp_path, {name: x.shape[1:] for name, x in test.data.items()})
    assert accuracy == {
        name: classifier.accuracy(test.data[name], test.labels)
        for name, classifier in classifiers.items()
    }
    assert [*accuracy] == ["m0", "m1", "m2", "m3", "m4", "word"]
    assert min(accuracy.values()) > 0.3  # chance is 0.1, with a standard deviation of 0.02
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert all([name, f"{value:.4f}"] in rows for name, value in accuracy.items())


def test_a_folder_with_files_is_not_touched(tmp_path):
    (tmp_path / "notes").write_text("keep")
    with pytest.raises(ValueError, match=r"out is .*, which is not empty"):
        main(ClassifiersConfig(dataset="mnist", out=tmp_path, data_dir=Path("nowhere")))
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"dataset": "cifar"}, "dataset is 'cifar'"),
        ({"dataset": "polydigits"}, "data_dir is"),
        ({"data_dir": Path("nowhere")}, "nowhere"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(data_dir, tmp_path, changes, message):
    settings = {"dataset": "mnist", "data_dir": data_dir, "out": tmp_path / "out"} | changes
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        main(ClassifiersConfig(**settings))
    assert not (tmp_path / "out").exists()
