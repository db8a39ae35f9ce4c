"""A run of ``mmvae train``, and the commands that use it."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from helpers.cli_data import NUM_TEST, NUM_TRAIN, SIZE, VIEWS, arrays_in, every_kind, mmvae

import mmvae_jax as mm
from mmvae_jax import loggers
from mmvae_jax.cli.evaluate import format_evaluation
from mmvae_jax.data import eval_batches
from mmvae_jax.estimator.measurements import likelihoods
from mmvae_jax.estimator.run_folder import open_run
from mmvae_jax.tables.examples import check_examples
from mmvae_jax.tables.reading import read_tables
from mmvae_jax.tables.views import View

ROOT = Path(__file__).parents[2]
STEPS = 100
TRAIN = (
    f"--likelihood diagnosis=categorical --num-steps {STEPS} --hidden 32 --latent-dim 4 --K 2 "
    "--batch-size 64 --learning-rate 5e-3"
)
NUM_PARTICLES = 20
FACTOR = 7.0


@pytest.fixture(scope="module")
def run(files, tmp_path_factory) -> Path:
    """A finished run; no test writes into it."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert mmvae("train", files[0], "--out", out, TRAIN, "--quiet") == 0
    return out


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """A copy of the run, to resume or to damage."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.fixture(scope="module")
def trained(run, files):
    """Model, held-out tables and held-out examples."""
    model, _ = open_run(run).load()
    tables = read_tables(files[1])
    return model, tables, check_examples(tables, model.views)


def digests(folder: Path) -> dict[str, str]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.mark.slow
def test_from_a_table_to_diagnoses(files, tmp_path, capsys):
    """Train on views with gaps, then predict the diagnoses of held-out tumours, and evaluate.

    The training has a process of its own.
    """
    run = tmp_path / "run"
    command = [sys.executable, "-m", "mmvae_jax.cli", "train", str(files[0]), "--out", str(run)]
    trained = subprocess.run(
        [*command, *TRAIN.split()],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert trained.returncode == 0, trained.stderr
    assert f"{STEPS}/{STEPS}" in trained.stderr  # the progress bar
    assert re.search(r"diagnosis +categorical +int64", trained.stdout)
    for name in ("loss.png", "latents.png", "history.jsonl", "summary.json"):
        assert (run / name).is_file()
    file = tmp_path / "found.npz"
    given = f"--given {' '.join(VIEWS)} --generate diagnosis --out {file}"
    assert mmvae("predict", run, files[1], given) == 0
    diagnosis = arrays_in(file)["diagnosis"]
    assert diagnosis.dtype == np.int64
    correct = np.mean(diagnosis == arrays_in(files[1])["diagnosis"])
    assert correct > 0.85  # the majority: 0.62
    capsys.readouterr()
    assert mmvae("evaluate", run, files[1], f"--num-particles {NUM_PARTICLES} --json") == 0
    errors = json.loads(capsys.readouterr().out)["reconstruction_error"]
    assert errors["diagnosis"]["from_others"] == pytest.approx(1 - correct)


# Predictions


def test_predictions_are_those_of_the_model(run, trained, files, tmp_path):
    """Means in the user's units are the model's own, converted here by hand."""
    found_model, tables, data = trained
    model, views, _ = found_model
    args = "--given error diagnosis --generate mean diagnosis --mean --out"
    assert mmvae("predict", run, files[1], args, tmp_path / "found.npz") == 0
    found = arrays_in(tmp_path / "found.npz")
    assert set(found) == {"mean", "diagnosis", "probabilities/diagnosis"}
    batch = mm.Batch({name: data.data[name][:] for name in ("error", "diagnosis")})
    expected = mm.predict(model, batch, None, return_mean=True)
    view = views["mean"]
    rows = np.asarray(expected["mean"][:, 0], np.float64) * view.scale + view.mean
    np.testing.assert_allclose(found["mean"], rows, rtol=1e-4)
    np.testing.assert_array_equal(found["diagnosis"], expected["diagnosis"][:, 0].argmax(-1))
    np.testing.assert_allclose(
        found["probabilities/diagnosis"], jax.nn.softmax(expected["diagnosis"][:, 0]), rtol=1e-4
    )
    assert set(read_tables(tmp_path / "found.npz").modalities) == {"mean", "diagnosis"}
    truth = tables.modalities["mean"].values
    assert np.mean((found["mean"] - truth) ** 2 / truth.var(0)) < 1  # better than the mean row


def test_latents_are_those_of_the_model(run, trained, files, tmp_path, capsys):
    (model, _, _), _, data = trained
    out = tmp_path / "latents.npz"
    assert mmvae("encode", run, files[1], "--given error --out", out) == 0
    assert f"latents: float32[{NUM_TEST}, 4] in {out}" in capsys.readouterr().out
    expected = mm.encode(model, mm.Batch({"error": data.data["error"][:]}), None, return_mean=True)
    np.testing.assert_allclose(arrays_in(out)["latents"], expected[:, 0], rtol=1e-4, atol=1e-6)
    assert mmvae("encode", run, files[1], "--num-samples 2 --out", tmp_path / "draws.npz") == 0
    draws = arrays_in(tmp_path / "draws.npz")["latents"]
    assert draws.shape == (NUM_TEST, 2, 4)
    assert (draws[:, 0] != draws[:, 1]).all()


def test_some_rows_of_the_data(run, trained, files, tmp_path, capsys):
    """The rows that a file lists, in its order; modalities that the model lacks are left out."""
    _, model_tables, data = trained
    np.savez(tmp_path / "more.npz", **arrays_in(files[1]), other=np.ones(NUM_TEST))
    (tmp_path / "rows.txt").write_text("5\n\n0\n168\n")
    options = f"--given error --rows {tmp_path}/rows.txt --out {tmp_path}/some.npz"
    assert mmvae("encode", run, tmp_path / "more.npz", options) == 0
    assert "has the modalities ['other'], which the model does not know" in capsys.readouterr().err
    found = arrays_in(tmp_path / "some.npz")["latents"]
    model = trained[0]
    expected = model.encode(data, ["error"])[0][[5, 0, 168]]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    for text, message in (
        ("169", "line 1 of"), ("5\n5", "line 2 of"), ("", "lists no rows"), ("p1", "numbers from 0")
    ):  # fmt: skip
        (tmp_path / "rows.txt").write_text(text)
        assert (
            mmvae("encode", run, tmp_path / "more.npz", options.replace("some.npz", "new.npz")) == 1
        )
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"the folder of a run on tables: give mm\.MMVAEEstimator"):
        mm.load(run)
    assert len(mm.MMVAEEstimator.load(run).transform(model_tables)) == NUM_TEST


@pytest.mark.slow
def test_several_seeds(files, tmp_path, capsys):
    """Each has a run of its own, and the best one serves the other commands."""
    out = tmp_path / "runs"
    assert mmvae("train", files[0], "--out", out, TRAIN, "--quiet --seeds 3 4") == 0
    assert "+- " in capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["validation_bound"]) == {"3", "4"}
    best = max(summary["validation_bound"], key=summary["validation_bound"].get)
    assert summary["best_seed"] == int(best)
    files_of = [tmp_path / name for name in ("all.npz", "one.npz")]
    for folder, file in zip((out, out / f"seed-{best}"), files_of, strict=True):
        assert mmvae("encode", folder, files[1], "--out", file) == 0
    np.testing.assert_array_equal(*(arrays_in(file)["latents"] for file in files_of))


def test_rows_without_anything_to_encode_are_masked(run, files, tmp_path, capsys):
    arrays = arrays_in(files[1])
    arrays["mean"][:7] = np.nan
    np.savez(tmp_path / "some.npz", mean=arrays["mean"])
    assert mmvae("encode", run, tmp_path / "some.npz", "--out", tmp_path / "found.npz") == 0
    assert f"warning: 7 of {NUM_TEST} rows" in capsys.readouterr().err
    found = arrays_in(tmp_path / "found.npz")
    np.testing.assert_array_equal(found["mask/latents"], np.arange(NUM_TEST) >= 7)
    np.testing.assert_array_equal(np.isnan(found["latents"]).all(1), ~found["mask/latents"])


def test_arrays_are_not_written_under_another_suffix(run, files, tmp_path, capsys):
    for command, args in (("predict", "--generate mean"), ("encode", "")):
        args = f"--given error {args} --out"
        assert mmvae(command, run, files[1], args, tmp_path / "found.csv") == 1
        assert "found.csv: arrays are written as .npz" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_version(capsys):
    assert mmvae("--version") == 0
    assert capsys.readouterr().out == f"mmvae {mm.__version__}\n"


def test_rows_with_nothing_given_have_no_prediction(run, files, tmp_path, capsys):
    arrays = arrays_in(files[1])
    arrays["mean"][:7] = np.nan
    arrays["mask/error"] = np.arange(NUM_TEST) >= 5
    del arrays["worst"]
    np.savez(tmp_path / "some.npz", **arrays)
    args = "--given mean error --generate worst diagnosis --num-samples 3 --out"
    assert mmvae("predict", run, tmp_path / "some.npz", args, tmp_path / "found.npz") == 0
    assert f"warning: 5 of {NUM_TEST} rows" in capsys.readouterr().err
    found = arrays_in(tmp_path / "found.npz")
    assert found["worst"].shape == (NUM_TEST, 3, SIZE)
    assert np.isnan(found["worst"][:5]).all()
    assert np.isfinite(found["worst"][5:]).all()
    assert (found["diagnosis"][:5] == -1).all()
    assert set(np.unique(found["diagnosis"][5:])) <= {0, 1}
    # The predictions are data again: the mask says where -1 is no class.
    again = {name: x[:, 0] if x.ndim > 1 else x for name, x in found.items()}
    np.savez(tmp_path / "again.npz", **again)
    read = check_examples(read_tables(tmp_path / "again.npz"), open_run(run).views)
    for name in ("worst", "diagnosis"):
        np.testing.assert_array_equal(read.mask[name], np.arange(NUM_TEST) >= 5)


def test_draws_have_the_noise_of_the_likelihood(trained):
    """Draws spread like the config's likelihood; the same seed gives the same draws."""
    model, _, data = trained
    rows, again, others = (
        model.predict(data, ["mean"], ["mean"], num_samples=200, seed=seed).rows["mean"]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(rows, again)
    assert not np.array_equal(rows, others)
    deviation = rows.std(1).mean(0) / model.views["mean"].scale
    noise = model.model.likelihood_params("mean")
    ratio = deviation / noise["scale"]
    assert ((ratio > 0.95) & (ratio < 2)).all(), ratio  # the latents vary, too


@pytest.mark.slow
def test_weighting_of_all_that_is_given(run, trained, files, tmp_path):
    """``--weighting importance`` predicts as the function does, and not as the mixture."""
    model, _, data = trained
    args = "--given error worst --generate mean --weighting importance --out"
    assert mmvae("predict", run, files[1], args, tmp_path / "found.npz") == 0
    found = arrays_in(tmp_path / "found.npz")["mean"]
    expected, mixture = (
        model.predict(data, ["error", "worst"], ["mean"], weighting=weighting).rows["mean"]
        for weighting in ("importance", "mixture")
    )
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - mixture).max() > 0


# Measurements


@pytest.mark.slow
def test_likelihoods_have_the_units_of_the_data(trained):
    """Data in units c times as large have a density 1 / c times as high, for each value."""
    model, tables, data = trained  # other units, and the same inputs of the model
    larger = {
        name: view._replace(mean=FACTOR * view.mean, scale=FACTOR * view.scale)
        if name in VIEWS
        else view
        for name, view in model.views.items()
    }
    scaled = {
        name: table._replace(values=FACTOR * table.values) if name in VIEWS else table
        for name, table in tables.modalities.items()
    }
    found, shifted = (
        likelihoods(some, of, data, jax.random.key(0), num_particles=NUM_PARTICLES)
        for some, of in (
            (model, tables),
            (model._replace(views=larger), dataclasses.replace(tables, modalities=scaled)),
        )
    )
    values = {"joint": 3 * SIZE, "diagnosis": 0, **dict.fromkeys(VIEWS, SIZE)}
    for name, count in values.items():
        one, other = (x["log_likelihood"][name] for x in (found, shifted))
        np.testing.assert_allclose(other["mean"] - one["mean"], -count * np.log(FACTOR), rtol=1e-3)
        assert one["num_rows"] == NUM_TEST
    change = shifted["bound"] - found["bound"]
    np.testing.assert_allclose(change, -3 * SIZE * np.log(FACTOR), rtol=1e-3)


@pytest.mark.slow
def test_evaluation_counts_observed_rows(run, trained, files, tmp_path, capsys):
    """The joint likelihood of incomplete rows is the model's estimate and the views' scales."""
    (model, views, _), _, _ = trained
    arrays = arrays_in(files[1])
    arrays["mean"][::2] = np.nan
    del arrays["worst"]
    np.savez(tmp_path / "some.npz", **arrays)
    options = f"--num-particles {NUM_PARTICLES} --json"
    assert mmvae("evaluate", run, tmp_path / "some.npz", options) == 0
    found = json.loads(capsys.readouterr().out)
    data = check_examples(read_tables(tmp_path / "some.npz"), views)
    log_p = []
    for number, part in enumerate(eval_batches(data, 128)):
        key = jax.random.key(number)
        log_p.append(-np.asarray(mm.compute_joint_nll(model, part, key, K=NUM_PARTICLES)))
    spans = {name: np.log(views[name].scale).sum() for name in ("mean", "error")}
    assert min(map(abs, spans.values())) > 5
    rows = np.concatenate(log_p)[:NUM_TEST] - spans["error"] - data.mask["mean"] * spans["mean"]
    likelihood = found["log_likelihood"]
    # Other particles differ by a nat or so in a row: by less than 0.1 in a mean of 169.
    assert abs(likelihood["joint"]["mean"] - rows.mean()) < 0.5
    assert likelihood["joint"]["standard_error"] is None  # rows observe different modalities
    assert likelihood["mean"]["num_rows"] == NUM_TEST // 2
    assert likelihood["mean"]["standard_error"] > 0
    assert 0 <= likelihood["mean"]["unreliable"] <= 1
    assert "worst" not in likelihood
    assert found["bound"] <= likelihood["joint"]["mean"]
    errors = found["reconstruction_error"]
    assert errors["diagnosis"]["from_others"] < 0.2
    assert 0 < errors["error"]["from_itself"] < 1.5
    lines = format_evaluation(found)
    assert sum(line.startswith("log p") for line in lines) == len(likelihood)


# Exports and checkpoints


@pytest.mark.slow
def test_an_exported_model_predicts_the_same(run, trained, tmp_path):
    model, _, data = trained
    assert mmvae("export", run, "--platforms cpu --out", tmp_path / "exported") == 0
    views = json.loads((tmp_path / "exported" / "views.json").read_text())
    view = View.from_json(views["worst"])
    exported = mm.load_exported(tmp_path / "exported")
    x = exported.predict({"mean": data.data["mean"][:]}, return_mean=True)["worst"][:, 0]
    found = model.predict(data, ["mean"], ["worst"]).rows
    # Another program: the last digits of sums differ.
    rows = view.to_rows(np.asarray(x))
    np.testing.assert_allclose(found["worst"], rows, rtol=1e-4)


def test_info_tells_intact_from_damaged(copy, trained, capsys):
    assert mmvae("info", copy, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    summary = json.loads((copy / "summary.json").read_text())
    steps = found["steps"]
    assert all(step["damage"] is None and step["bytes"] > 1000 for step in steps.values())
    assert found["best_step"] == summary["best_step"]
    assert found["settings"]["run"]["validation"] == 0.1
    assert summary["num_train"] + summary["num_validation"] == NUM_TRAIN
    params = jax.tree.leaves(nnx.state(trained[0].model, nnx.Param))
    assert summary["num_parameters"] == sum(x.size for x in params)
    (copy / "checkpoints" / str(STEPS) / "manifest.json").write_text("{}")
    assert mmvae("info", copy / "checkpoints") == 0
    out = capsys.readouterr().out
    assert out.count("damaged: ") == 1
    assert out.count("  intact") == len(steps) - 1


def test_damaged_checkpoints_are_named(copy, files, capsys):
    for step in (copy / "checkpoints").glob("[0-9]*"):
        (step / "manifest.json").write_text("{}")
    assert mmvae("evaluate", copy, files[1]) == 1
    assert "no step to restore" in capsys.readouterr().err
    (copy / "checkpoints" / "config.json").write_text("{")
    assert mmvae("info", copy) == 1
    assert "config.json cannot be read" in capsys.readouterr().err


# Ends and new starts


@pytest.mark.slow
@pytest.mark.parametrize("seeds", ["", "--seeds 3 4"], ids=["a run", "runs of seeds"])
def test_a_preempted_run_is_resumed(seeds, tmp_path, monkeypatch, capsys):
    """Also with a seed whose run had not begun when the command was stopped."""
    np.savez(tmp_path / "data.npz", column=every_kind()["column"])
    options = "--num-steps 20 --hidden 4 --latent-dim 2 --K 1 --validation 0 --quiet"
    command = ("train", tmp_path / "data.npz", "--out", tmp_path / "run", options, seeds)
    jsonl = loggers.jsonl

    def ending(file):
        log = jsonl(file)

        def call(step, metrics, state):
            log(step, metrics, state)
            os.kill(os.getpid(), signal.SIGTERM)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(loggers, "jsonl", ending)
        assert mmvae(*command) == 75
    assert "preempted by SIGTERM at step 10" in capsys.readouterr().err
    other_kind = "" if seeds else "--seeds 3"
    assert mmvae(*command[:-1], other_kind, "--resume") == 1
    assert "error: out is " in capsys.readouterr().err
    assert mmvae(*command, "--resume") == 0
    folders = [f"run/seed-{seed}" for seed in seeds.split()[1:]] or ["run"]
    for folder in folders:
        history = loggers.read_jsonl(tmp_path / folder / "history.jsonl")
        np.testing.assert_array_equal(history["step"], [10, 20])
        assert json.loads((tmp_path / folder / "summary.json").read_text())["best_step"] == 20
    assert len(list(tmp_path.rglob("history.jsonl"))) == len(folders)


def test_a_run_is_resumed_with_the_same_data_and_settings_only(copy, files, tmp_path, capsys):
    before = digests(copy)
    arrays = arrays_in(files[0])
    arrays["labels"] = 1 - arrays["labels"]  # only figures use them
    arrays["error"][5] += 1e-3
    np.savez(tmp_path / "changed.npz", **arrays)
    for data, option, message in (
        (files[0], "--num-steps 50", f"run is at step {STEPS}"),
        (files[0], "--validation 0.2", "run.validation: 0.1 there, 0.2 now"),
        (files[0], "--beta 2", "model.beta: 1.0 there, 2.0 now"),
        (tmp_path / "changed.npz", "", "run.data.error"),
    ):
        assert mmvae("train", data, "--out", copy, TRAIN, "--quiet --resume", option) == 1
        assert message in capsys.readouterr().err
    assert digests(copy) == before


def test_nothing_is_overwritten(run, files, tmp_path, capsys):
    before = digests(run)
    taken = tmp_path / "taken.npz"
    taken.write_text("precious")
    for command in (
        ("train", files[0], "--out", run),
        ("train", files[0], "--out", taken),
        ("predict", run, files[1], "--given mean --generate worst --out", taken),
        ("export", run, "--out", taken),
        ("export", run, "--out", run),
    ):
        assert mmvae(*command) == 1
        assert "nothing is overwritten" in capsys.readouterr().err
    assert digests(run) == before
    assert taken.read_text() == "precious"


#: Changes to the held-out file (None removes an array), the command, and the start of the error.
MISTAKES = {
    "no data": ({}, "train {new} --out {new}", "{new} does not exist"),
    "unknown modalities": (
        dict.fromkeys((*VIEWS, "diagnosis")) | {"men": np.ones(NUM_TEST)}, "evaluate {run} {data}",
        "{data} has the unknown modalities ['men']",
    ),
    "other rows": (
        {"mean": np.ones((NUM_TEST, 9))}, "evaluate {run} {data}",
        "mean in {data} has rows of shape (9,)",
    ),
    "another class": (
        {"diagnosis": np.full(NUM_TEST, 2)}, "evaluate {run} {data}",
        "diagnosis in {data}: row 0 holds 2",
    ),
    "no run": ({}, "evaluate {new} {data}", "RUN is {new}"),
    "given": (
        {}, "predict {run} {data} --given men --generate mean --out {new}.npz",
        "--given is ['men']",
    ),
    "not in the data": (
        {"mean": None}, "predict {run} {data} --given mean --generate error --out {new}.npz",
        "--given is ['mean']",
    ),
    "no draws": (
        {}, "predict {run} {data} --given mean --generate error --num-samples 0 --out {new}.npz",
        "--num-samples is 0",
    ),
    "no folder": (
        {}, "predict {run} {data} --given mean --generate error --out {new}/x.npz",
        "--out is {new}/x.npz",
    ),
    "no such step": ({}, "export {run} --out {new} --step 7", "{run}/checkpoints holds no step 7"),
    "no exported draws": ({}, "export {run} --out {new} --num-samples 0", "num_samples is 0"),
    "info without a run": ({}, "info {data}", "{data} holds no config.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name, run, files, tmp_path, capsys):
    changes, command, message = MISTAKES[name]
    places = {"run": run, "new": tmp_path / "new", "data": tmp_path / "data.npz"}
    arrays = arrays_in(files[1]) | changes
    np.savez(places["data"], **{name: x for name, x in arrays.items() if x is not None})
    assert mmvae(command.format(**places)) == 1
    assert capsys.readouterr().err.startswith(f"error: {message.format(**places)}")
    assert not places["new"].exists()


def test_a_missing_library_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tyro", None)
    for name in [name for name in sys.modules if name.startswith("mmvae_jax.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    assert mmvae("info run") == 1
    assert "error: mmvae needs tyro: " in capsys.readouterr().err
