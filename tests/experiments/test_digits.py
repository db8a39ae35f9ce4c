"""The digits experiment: its command, its files, resumed runs, and errors."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.figure_checks import FIGURES

import mmvae_jax as mm
from experiments import digits, run_experiment
from experiments.digits import DigitsConfig
from mmvae_jax import plots
from mmvae_jax.data import take
from mmvae_jax.loggers import read_jsonl
from mmvae_jax.metrics.classifier import train_classifier
from mmvae_jax.networks.images import ConvEncoder
from mmvae_jax.networks.mlp import MLPDecoder
from mmvae_jax.training import loop
from mmvae_jax.training.checkpoint import Checkpoints

ROOT = Path(__file__).parents[2]
# No checkpoint falls on step 5, so a run that stops there repeats two steps.
FLAGS = (
    "--modalities 2 --hidden 8 --latent-dim 2 --K 2 --pairings 1 --missing 0.4 --num-steps 8 "
    "--log-every 1 --save-every 3 --num-test 40 --num-samples 50"
)
TINY = DigitsConfig(
    modalities=2,
    hidden=(8,),
    latent_dim=2,
    K=2,
    pairings=1,
    missing=0.4,
    num_steps=8,
    log_every=1,
    save_every=3,
    num_test=40,
    num_samples=50,
)


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory) -> Path:
    """Folder of classifiers after one training step."""
    folder = tmp_path_factory.mktemp("classifiers")
    x, key = np.zeros((10, 16, 16, 3), np.float32), jax.random.key(0)
    trained = train_classifier(x, np.arange(10), num_classes=10, key=key, num_steps=1)
    for name in ("m0", "m1"):
        trained.save(folder / f"{name}.npz")
    return folder


@pytest.fixture(scope="module")
def finished(classifiers, tmp_path_factory) -> tuple[Path, str]:
    """Folder and output of ``python -m experiments.digits``."""
    out = tmp_path_factory.mktemp("digits") / "run"
    command = [sys.executable, "-m", "experiments.digits", *FLAGS.split()]
    done = subprocess.run(
        [*command, "--classifiers", str(classifiers), "--out", str(out)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_run_writes_every_file(finished):
    out, _ = finished
    files = {path.name for path in out.iterdir()}
    assert files == FIGURES | {"metrics.json", "history.jsonl", "checkpoints"}
    for name in FIGURES:
        assert (out / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_metrics_are_complete_and_finite(finished):
    metrics = json.loads((finished[0] / "metrics.json").read_text())
    assert metrics["config"] == json.loads(json.dumps(TINY.settings()))
    assert metrics["steps"] == 8
    assert metrics["versions"]["jax"] == jax.__version__
    assert metrics["seconds"]["total"] > 0
    pairs = metrics["conditional_coherence_pairs"]
    assert list(pairs) == list(metrics["latent_probe_modalities"]) == ["m0", "m1"]
    cross = [pairs["m0"]["m1"], pairs["m1"]["m0"]]
    assert metrics["conditional_coherence"] == pytest.approx(np.mean(cross))
    for name in ("conditional_coherence", "joint_coherence", "latent_probe"):
        assert 0 <= metrics[name] <= 1
    assert math.isfinite(metrics["test_bound"])


@pytest.mark.slow
def test_history_has_a_row_per_step(finished):
    history = read_jsonl(finished[0] / "history.jsonl")
    expected = {"step", "loss", "kl", "grad_norm", "learning_rate", "log_likelihood/m0"}
    assert expected <= set(history)
    np.testing.assert_array_equal(history["step"], np.arange(1, 9))
    assert all(np.isfinite(column).all() for column in history.values())


@pytest.mark.slow
def test_the_command_prints_a_table_and_the_paths(finished):
    out, printed = finished
    lines = printed.splitlines()
    names = ("conditional", "joint coherence", "effective classes", "latent probe", "classifiers")
    rows = [line for line in lines if line.startswith(names)]
    assert len(rows) == len(names) + 1  # the joint coherence is also averaged over classes
    assert len(set(map(len, rows))) == 1  # aligned
    assert all(str(path) in lines for path in out.iterdir())


@pytest.mark.slow
def test_nothing_is_overwritten(finished, classifiers, tmp_path):
    out, _ = finished
    before = contents(out)
    config = dataclasses.replace(TINY, out=out, classifiers=classifiers)
    with pytest.raises(ValueError, match=r"out is .*run, which is not empty"):
        run_experiment.main(config)
    resumed = dataclasses.replace(config, resume=True)
    with pytest.raises(ValueError, match="config differs") as error:
        run_experiment.main(dataclasses.replace(resumed, K=3, hidden=(9,)))
    lines = str(error.value).splitlines()
    assert {"  run.hidden: [8] there, [9] now", "  model.K: 2 there, 3 now"} <= set(lines)
    run_experiment.main(resumed)  # a finished run is only printed
    assert contents(out) == before

    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(ValueError, match=r"out is .*, which is not empty"):
        run_experiment.main(dataclasses.replace(config, out=tmp_path))
    with pytest.raises(ValueError, match=r"out is .*notes\.txt, which is a file"):
        run_experiment.main(dataclasses.replace(config, out=notes))
    with pytest.raises(ValueError, match="resume is True"):
        run_experiment.main(dataclasses.replace(resumed, out=tmp_path))
    assert contents(tmp_path) == {notes: b"mine"}


def parameters(folder: Path) -> dict[str, bytes]:
    keys = jax.random.split(jax.random.key(0))
    checkpoints = Checkpoints(folder / "checkpoints", config=TINY.run_config())
    state = checkpoints.restore(TINY.init_state(*keys, 8))
    assert int(state.step) == 8
    leaves = jax.tree.leaves_with_path(state.params)
    return {jax.tree_util.keystr(path): np.asarray(x).tobytes() for path, x in leaves}


def stop_at(step: int):
    def stopping(state, batch, **options):
        if int(state.step) + 1 == step:
            raise KeyboardInterrupt
        return mm.train_step(state, batch, **options)

    return stopping


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(finished, classifiers, tmp_path, monkeypatch):
    uninterrupted, _ = finished
    config = dataclasses.replace(TINY, out=tmp_path / "run", classifiers=classifiers)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stop_at(5))
        with pytest.raises(KeyboardInterrupt):
            run_experiment.main(config)
    # The log has step 4, which no checkpoint has.
    assert len((config.out / "history.jsonl").read_text().splitlines()) == 4
    monkeypatch.setattr(plots, "project_2d", lambda z: z[:, :2])  # t-SNE is slow
    (resumed,) = run_experiment.main(dataclasses.replace(config, resume=True))

    assert parameters(config.out) == parameters(uninterrupted)
    histories = [(folder / "history.jsonl").read_bytes() for folder in (config.out, uninterrupted)]
    assert histories[0] == histories[1]
    metrics = json.loads((uninterrupted / "metrics.json").read_text())
    assert {**resumed, "seconds": None} == {**metrics, "seconds": None}


@pytest.mark.slow
def test_trained_classifiers_recognise_real_images_and_words(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "project_2d", lambda z: z[:, :2])  # t-SNE is slow
    config = dataclasses.replace(TINY, text=True, num_test=10_000, out=tmp_path / "run")
    (metrics,) = run_experiment.main(config)
    accuracy = metrics["classifier_accuracy"]
    assert list(accuracy) == ["m0", "m1", "word"]
    assert min(accuracy.values()) > 0.9


@pytest.mark.slow
def test_convolutional_networks_and_words():
    config = DigitsConfig(networks="conv", text=True, hidden=(8,), features=(2, 3), latent_dim=2)
    model = config.init_state(*jax.random.split(jax.random.key(0)), 1500).model()
    assert isinstance(model.encoders["m1"], ConvEncoder)
    assert isinstance(model.decoders["word"], MLPDecoder)
    images = model.decoders["m1"](jax.random.normal(jax.random.key(1), (5, 2)))
    assert images.shape == (5, 16, 16, 3)
    assert ((images > 0) & (images < 1)).all()
    batch = take(digits.polydigits(3, text=True, num_pairings=1).test, np.arange(5))
    assert np.isfinite(mm.loss(model, mm.Batch(data=batch.data), jax.random.key(2)))


@pytest.mark.slow
def test_divergence_stops_the_run(tmp_path):
    config = dataclasses.replace(TINY, learning_rate=1e30, num_steps=40, out=tmp_path / "run")
    with pytest.raises(FloatingPointError, match=r"is \S+ at step \d+"):
        run_experiment.main(config)
    assert not (config.out / "metrics.json").exists()
    checkpoints = Checkpoints(config.out / "checkpoints", config=config.run_config())
    assert checkpoints.steps == (0,)


@pytest.mark.slow
def test_a_batch_larger_than_the_data_stops_the_run(tmp_path):
    config = dataclasses.replace(TINY, batch_size=2000, out=tmp_path / "run")
    with pytest.raises(ValueError, match="batch_size is 2000"):
        run_experiment.main(config)
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("modalities", 6),
        ("modalities", 1),
        ("networks", "cnn"),
        ("hidden", ()),
        ("hidden", (8, 0)),
        ("features", ()),
        ("features", (2,) * 5),
        ("scale", 0.0),
        ("pairings", 0),
    ],
)
def test_wrong_values_are_named(field, value):
    with pytest.raises(ValueError, match=re.escape(f"{field} is {value!r}")):
        DigitsConfig(**{field: value})


def test_convolutional_networks_have_one_dense_layer():
    with pytest.raises(ValueError, match=r"hidden is \(8, 8\)"):
        DigitsConfig(networks="conv", hidden=(8, 8))


def test_scales_of_images_are_trained_on_request():
    """Words are categorical, which has no scale."""
    config = DigitsConfig(modalities=2, text=True, scale=0.2, learn_scale=True).model_config()
    learned = {"scale": mm.Learned(0.2)}
    assert config.decoder_dist_params == {"m0": learned, "m1": learned, "word": {}}
