"""The digits experiment: its command line, its files, and runs that stop and go on."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro
from helpers.figure_checks import FIGURES

import mmvae_jax as mm
from experiments import conduct, digits
from experiments.digits import Config
from mmvae_jax import plots
from mmvae_jax.data.arrays import take
from mmvae_jax.loggers import read_jsonl
from mmvae_jax.networks.images import ConvEncoder
from mmvae_jax.networks.mlp import MLPDecoder
from mmvae_jax.training import loop
from mmvae_jax.training.checkpoint import Checkpoints

ROOT = Path(__file__).parents[2]
# Steps that no checkpoint falls on, so that a run stopped at step 5 repeats two of them.
TINY = Config(
    modalities=2,
    text=True,
    hidden=(8,),
    latent_dim=2,
    K=2,
    pairings=1,
    missing=0.4,
    num_steps=8,
    log_every=1,
    save_every=3,
    num_samples=50,
)
TINY_ARGS = (
    "--modalities 2 --text --hidden 8 --latent-dim 2 --K 2 --pairings 1 --missing 0.4 "
    "--num-steps 8 --log-every 1 --save-every 3 --num-samples 50"
)


def run_command(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.digits", *args]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def parameters(folder: Path) -> dict[str, bytes]:
    keys = jax.random.split(jax.random.key(0))
    checkpoints = Checkpoints(folder / "checkpoints", config=TINY.run_config())
    state = checkpoints.restore(TINY.init_state(*keys, 8))
    assert int(state.step) == 8
    leaves = jax.tree.leaves_with_path(state.params)
    return {jax.tree_util.keystr(path): np.asarray(x).tobytes() for path, x in leaves}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """A run from the command line, never stopped: its folder and what it printed."""
    out = tmp_path_factory.mktemp("digits") / "run"
    done = run_command(*TINY_ARGS.split(), "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_writes_every_file(finished):
    out, _ = finished
    files = {path.name for path in out.iterdir()}
    assert files == FIGURES | {"metrics.json", "history.jsonl", "checkpoints"}
    for name in FIGURES:
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_metrics_are_complete_and_finite(finished):
    metrics = json.loads((finished[0] / "metrics.json").read_text())
    assert metrics["config"] == json.loads(json.dumps(TINY.settings()))
    assert metrics["steps"] == 8
    assert metrics["versions"]["jax"] == jax.__version__
    assert metrics["seconds"]["total"] > 0
    names = ["m0", "m1", "word"]
    pairs = metrics["conditional_coherence_pairs"]
    assert list(pairs) == names
    cross = [pairs[given][name] for given in names for name in names if name != given]
    assert metrics["conditional_coherence"] == pytest.approx(np.mean(cross))
    for share in ("conditional_coherence", "joint_coherence", "latent_probe"):
        assert 0 <= metrics[share] <= 1
    assert list(metrics["latent_probe_modalities"]) == names
    # Classifiers of real images and words, whatever the model: they must be fit to judge.
    assert min(metrics["classifier_accuracy"].values()) > 0.9
    assert math.isfinite(metrics["test_bound"])


def test_history_has_a_row_per_step(finished):
    history = read_jsonl(finished[0] / "history.jsonl")
    expected = {"step", "loss", "kl", "grad_norm", "learning_rate", "log_likelihood/word"}
    assert expected <= set(history)
    np.testing.assert_array_equal(history["step"], np.arange(1, 9))
    assert all(np.isfinite(column).all() for column in history.values())


def test_prints_a_table_and_the_paths(finished):
    out, printed = finished
    lines = printed.splitlines()
    names = ("conditional coherence", "joint coherence", "latent probe", "classifiers")
    rows = [line for line in lines if line.startswith(names)]
    assert len(rows) == len(names)
    assert len(set(map(len, rows))) == 1  # aligned
    assert all(str(path) in lines for path in out.iterdir())


@pytest.mark.slow
def test_a_stopped_run_goes_on_as_if_it_had_not(finished, tmp_path, monkeypatch):
    undisturbed, _ = finished
    out = tmp_path / "run"
    config = Config(**{**vars(TINY), "out": out})
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stop_at(5))
        with pytest.raises(KeyboardInterrupt):
            conduct.main(config)
    # That of step 4 is written, and not yet covered by a checkpoint.
    assert len((out / "history.jsonl").read_text().splitlines()) == 4
    monkeypatch.setattr(plots, "project_2d", lambda z: z[:, :2])  # t-SNE takes long
    (resumed,) = conduct.main(Config(**{**vars(config), "resume": True}))

    assert parameters(out) == parameters(undisturbed)
    histories = [(folder / "history.jsonl").read_bytes() for folder in (out, undisturbed)]
    assert histories[0] == histories[1]
    metrics = json.loads((undisturbed / "metrics.json").read_text())
    assert {**resumed, "seconds": None} == {**metrics, "seconds": None}


def stop_at(step: int):
    def stopping(state, batch, **options):
        if int(state.step) + 1 == step:
            raise KeyboardInterrupt
        return mm.train_step(state, batch, **options)

    return stopping


def test_nothing_that_is_there_is_overwritten(finished, tmp_path):
    out, _ = finished
    before = contents(out)
    config = {**vars(TINY), "out": out}
    with pytest.raises(ValueError, match=r"out is .*run, which is not empty.*--resume.*--out"):
        conduct.main(Config(**config))
    with pytest.raises(ValueError, match="config differs") as error:
        conduct.main(Config(**{**config, "resume": True, "K": 3, "hidden": (9,)}))
    lines = str(error.value).splitlines()
    assert {"  run.hidden: [8] there, [9] now", "  model.K: 2 there, 3 now"} <= set(lines)
    conduct.main(Config(**{**config, "resume": True}))  # finished: it is only shown again
    assert contents(out) == before

    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(ValueError, match="which is not empty"):
        conduct.main(Config(**{**config, "out": tmp_path}))
    with pytest.raises(ValueError, match=r"notes\.txt, which is a file"):
        conduct.main(Config(**{**config, "out": notes}))
    with pytest.raises(ValueError, match=r"resume is True, but .* holds no checkpoint"):
        conduct.main(Config(**{**config, "out": tmp_path, "resume": True}))
    assert contents(tmp_path) == {notes: b"mine"}


@pytest.mark.parametrize(
    ("field", "value", "fix"),
    [
        ("modalities", 6, "from 2 to 5"),
        ("modalities", 1, "from 2 to 5"),
        ("networks", "cnn", "choose one of"),
        ("hidden", (), "at least 1"),
        ("hidden", (8, 0), "at least 1"),
        ("features", (), "at least 1"),
        ("features", (2,) * 5, "at most 4"),
        ("latent_dim", 0, "at least 1"),
        ("K", 0, "at least 1"),
        ("scale", 0.0, "above 0"),
        ("loss", "dregs", "dreg_looser"),
        ("pairings", 0, "at least 1"),
        ("missing", 1.5, "from 0 to 1"),
        ("missing", math.nan, "from 0 to 1"),
        ("batch_size", 0, "at least 1"),
        ("learning_rate", -1.0, "above 0"),
        ("num_steps", 0, "at least 1"),
        ("save_every", 0, "at least 1"),
        ("num_samples", 0, "at least 1"),
        ("seed", -1, "at least 0"),
    ],
)
def test_wrong_values_are_named(field, value, fix):
    with pytest.raises(ValueError, match=field) as error:
        Config(**{field: value})
    assert f"{field} is {value!r}" in str(error.value)
    assert fix in str(error.value)


def test_convolutional_networks_have_one_dense_layer():
    with pytest.raises(ValueError, match=r"hidden is \(8, 8\): give one width"):
        Config(networks="conv", hidden=(8, 8))


def test_wrong_commands_end_with_a_message(tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        tyro.cli(Config, args=["--missing", "1.5"])
    assert "missing is 1.5: give a probability" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["digits", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^error: out is .* which is not empty"):
        conduct.command_line(Config)


def test_batch_larger_than_the_data(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="batch_size=2000: choose 1 to"):
        conduct.main(Config(**{**vars(TINY), "batch_size": 2000, "out": out}))
    assert not out.exists()


@pytest.mark.slow
def test_convolutional_networks_take_part():
    config = Config(networks="conv", text=True, hidden=(8,), features=(2, 3), latent_dim=2)
    model = config.init_state(*jax.random.split(jax.random.key(0)), 1500).model()
    assert isinstance(model.encoders["m1"], ConvEncoder)
    assert isinstance(model.decoders["word"], MLPDecoder)
    images = model.decoders["m1"](jax.random.normal(jax.random.key(1), (5, 2)))
    assert images.shape == (5, 16, 16, 3)
    assert ((images > 0) & (images < 1)).all()
    batch = take(digits.polydigits(3, text=True, num_pairings=1).test, np.arange(5))
    assert np.isfinite(mm.loss(model, mm.Batch(data=batch.data), jax.random.key(2)))


def test_divergence_stops_the_run(tmp_path):
    out = tmp_path / "run"
    config = Config(**{**vars(TINY), "learning_rate": 1e30, "num_steps": 40, "out": out})
    with pytest.raises(FloatingPointError, match=r"is \S+ at step \d+; the last good"):
        conduct.main(config)
    assert not (out / "metrics.json").exists()
    assert Checkpoints(out / "checkpoints", config=config.run_config()).steps == (0,)
