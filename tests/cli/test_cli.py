"""The command line: a user's arrays in, a model and predictions in the user's units out."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from helpers.cli_data import NUM_TEST, NUM_TRAIN, SIZE, VIEWS, every_kind, write_tumours

import mmvae_jax as mm
from mmvae_jax import loggers
from mmvae_jax.cli import evaluate, figures, main
from mmvae_jax.cli.dataset import Prepared, all_examples, prepare
from mmvae_jax.cli.networks import Networks
from mmvae_jax.cli.predict import predict_rows
from mmvae_jax.cli.run_folder import open_run
from mmvae_jax.cli.tables import read_table
from mmvae_jax.cli.views import View
from mmvae_jax.data import eval_batches
from mmvae_jax.networks.images import ConvDecoder, ConvEncoder
from mmvae_jax.networks.mlp import MLPEncoder

ROOT = Path(__file__).parents[2]
STEPS = 100
TRAIN = (
    f"--likelihood diagnosis=categorical --steps {STEPS} --hidden 32 --latent-dim 4 --K 2 "
    "--batch-size 64 --learning-rate 5e-3"
)
NUM_PARTICLES = 20


def mmvae(*args: object) -> int:
    """The command line in this process; words of one string are arguments of their own."""
    return main([word for arg in args for word in str(arg).split()])


def prepared(path: Path, validation: float = 0.0, seed: int = 0, **likelihoods: str) -> Prepared:
    return prepare(read_table(path), likelihoods, validation=validation, seed=seed)


def config_of(views: dict[str, View]) -> mm.MMVAEConfig:
    return mm.MMVAEConfig(
        input_dims={name: view.dim for name, view in views.items()},
        decoders_dist={name: view.likelihood for name, view in views.items()},
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    return write_tumours(tmp_path_factory.mktemp("tumours"))


def process(*args: object) -> subprocess.CompletedProcess[str]:
    """The command line as users call it."""
    words = [word for arg in args for word in str(arg).split()]
    return subprocess.run(
        [sys.executable, "-m", "mmvae_jax.cli", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def training(files, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run in a process of its own, and what that has printed."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, process("train", files[0], "--out", out, TRAIN)


@pytest.fixture(scope="module")
def run(training) -> Path:
    """A finished run; no test writes into it."""
    return training[0]


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """Of the run, to go on with or do damage to."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.fixture(scope="module")
def trained(run, files):
    """What the commands start from: run, model, held-out table and examples."""
    opened = open_run(run)
    table = read_table(files[1])
    return opened, opened.model(None)[0], table, all_examples(table, opened.views)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("kinds") / "data.npz"
    np.savez(file, **every_kind())
    return file


def arrays_in(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as archive:
        return dict(archive)


def contents(folder: Path) -> dict[str, str]:
    """Digests of all files below a folder."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


# A whole story, by way of the true entry point


def test_from_a_table_to_diagnoses(training, files, tmp_path):
    """Train on views with gaps, then tell the diagnoses of tumours that training never saw."""
    run, trained = training
    assert trained.returncode == 0, trained.stderr
    assert f"{STEPS}/{STEPS}" in trained.stderr  # the progress bar
    assert "categorical, 2 classes" in trained.stdout
    for name in ("loss.png", "latents.png", "history.jsonl", "summary.json"):
        assert (run / name).is_file()
    file = tmp_path / "found.npz"
    given = f"--given {' '.join(VIEWS)} --generate diagnosis --out {file}"
    predicted = process("predict", run, files[1], given)
    assert predicted.returncode == 0, predicted.stderr
    diagnosis = arrays_in(file)["diagnosis"]
    assert diagnosis.dtype == np.int64
    assert np.mean(diagnosis == arrays_in(files[1])["diagnosis"]) > 0.85  # the majority: 0.62


# What is read


def test_likelihoods_follow_from_the_values(kinds):
    chosen = {
        "table": "normal",
        "column": "normal",
        "picture": "laplace",
        "grey": "laplace",
        "floats": "laplace",
        "bits": "bernoulli",
        "binary": "bernoulli",
        "class": "categorical",
        "words": "categorical",
    }
    found = {name: view.likelihood for name, view in prepared(kinds).views.items()}
    assert found == chosen
    told = {"class": "normal", "grey": "bernoulli", "bits": "categorical", "table": "laplace"}
    found = {name: view.likelihood for name, view in prepared(kinds, **told).views.items()}
    assert found == chosen | told


def test_every_kind_fits_the_model(kinds):
    """The config and the default networks take what views make of the rows."""
    _, views, data, _ = prepared(kinds)
    assert {name: view.dim for name, view in views.items()} == {
        "table": (4,),
        "column": (1,),
        "picture": (6, 6, 3),
        "grey": (6, 6, 1),
        "floats": (6, 6, 3),
        "bits": (6,),
        "binary": (6,),
        "class": (3,),
        "words": (5, 7),
    }
    columns = {name: column[:] for name, column in data.data.items()}
    assert columns["picture"].dtype == np.uint8  # to be divided on the device
    batch, config = mm.Batch(columns, data.mask), config_of(views)
    value = jax.eval_shape(
        lambda: mm.loss(mm.MMVAE(config, rngs=nnx.Rngs(0)), batch, jax.random.key(0))
    )
    assert jax.tree.leaves(value)


def test_rows_come_back_in_their_units(kinds):
    """`to_rows` undoes `to_input`, for logits of the very values and a view from JSON."""
    everything = np.ones(12, bool)
    for name, rows in every_kind().items():
        view = prepared(kinds).views[name]
        x = view.to_input(rows, everything)
        if view.num_classes:
            x = 40 * np.eye(view.num_classes)[x]
        elif view.likelihood == "bernoulli":
            x = 80 * x - 40
        elif view.are_bytes:
            x = x / 255
        read = View.from_json(json.loads(json.dumps(view.to_json())))
        again = read.to_rows(np.asarray(x, np.float64), are_draws=False)
        assert again.shape == rows.shape
        np.testing.assert_allclose(again, rows.astype(again.dtype), rtol=1e-5, atol=1e-6)


def test_columns_are_standardised_by_the_rows_trained_on(files):
    _, _, train, validation = prepared(files[0], validation=0.25, seed=3)
    assert (len(train.data["mean"]), len(validation.data["mean"])) == (300, 100)
    seen = train.mask["mean"]
    x = train.data["mean"][:].astype(np.float64)
    np.testing.assert_allclose(x[seen].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(x[seen].std(0), 1, rtol=1e-5)
    assert abs(validation.data["mean"][:].mean()) > 1e-3
    assert (x[~seen] == 0).all()
    missing = np.isnan(arrays_in(files[0])["mean"]).all(1).sum()
    assert (~seen).sum() + (~validation.mask["mean"]).sum() == missing > 0


def test_a_column_that_never_varies_is_left_as_it_is(tmp_path):
    values = np.random.default_rng(0).standard_normal((6, 2))
    values[:, 1] = 0.1
    np.savez(tmp_path / "data.npz", x=values)
    x = prepared(tmp_path / "data.npz").train.data["x"][:]
    np.testing.assert_allclose(x[:, 1], 0, atol=1e-6)


def test_a_folder_is_read_as_a_file_is(tmp_path):
    """A batch at a time, with masks and labels of the same names."""
    arrays = every_kind()
    mask = np.arange(12) % 4 != 0
    np.savez(tmp_path / "data.npz", **arrays, **{"mask/class": mask}, labels=arrays["class"])
    folder = tmp_path / "data"
    (folder / "mask").mkdir(parents=True)
    for name, x in {**arrays, "labels": arrays["class"], "mask/class": mask}.items():
        np.save(folder / f"{name}.npy", x)
    one, other = (prepared(path, validation=0.2) for path in (tmp_path / "data.npz", folder))
    assert isinstance(other.table.modalities["picture"].values, np.memmap)
    for name in arrays:
        assert one.table.modalities[name].crc32 == other.table.modalities[name].crc32
        np.testing.assert_array_equal(one.train.data[name][:], other.train.data[name][:])
        np.testing.assert_array_equal(one.train.mask[name], other.train.mask[name])
    assert one.train.mask["class"].sum() < len(one.train.mask["class"])
    np.testing.assert_array_equal(one.train.labels, other.train.labels)


def test_networks_suit_the_modalities(tmp_path):
    image = np.random.default_rng(0).integers(256, size=(4, 20, 24), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", image=image, small=image[:, :8, :8])
    views = prepared(tmp_path / "data.npz").views
    encoders, decoders = nnx.eval_shape(lambda: Networks("conv", (8,)).build(views, 3, nnx.Rngs(0)))
    assert isinstance(encoders["image"], ConvEncoder)
    assert isinstance(encoders["small"], MLPEncoder)
    assert isinstance(decoders["image"], ConvDecoder)
    assert decoders["image"].sizes[-1] == (20, 24)
    assert decoders["image"].sigmoid


def test_pictures_are_drawn_of_each_other(tmp_path):
    pictures = {name: x for name, x in every_kind().items() if name in ("column", "grey", "floats")}
    np.savez(tmp_path / "data.npz", **pictures)
    _, views, data, _ = prepared(tmp_path / "data.npz")
    (tmp_path / "history.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    model = mm.MMVAE(config_of(views), rngs=nnx.Rngs(0))
    figures.draw(model, views, data, tmp_path, jax.random.key(0))
    assert {path.name for path in tmp_path.glob("*.png")} == {"loss.png", "cross_generations.png"}


# What is predicted


def test_predictions_are_those_of_the_model(run, trained, files, tmp_path):
    """Means in the user's units, against the model's own by hand."""
    opened, model, table, data = trained
    args = "--given error diagnosis --generate mean diagnosis --mean --out"
    assert mmvae("predict", run, files[1], args, tmp_path / "found.npz") == 0
    found = arrays_in(tmp_path / "found.npz")
    assert set(found) == {"mean", "diagnosis"}
    batch = mm.Batch({name: data.data[name][:] for name in ("error", "diagnosis")})
    expected = mm.predict(model, batch, None, return_mean=True)
    view = opened.views["mean"]
    rows = np.asarray(expected["mean"][:, 0], np.float64) * view.scale + view.mean
    np.testing.assert_allclose(found["mean"], rows, rtol=1e-4)
    np.testing.assert_array_equal(found["diagnosis"], expected["diagnosis"][:, 0].argmax(-1))
    truth = table.modalities["mean"].values
    assert np.mean((found["mean"] - truth) ** 2 / truth.var(0)) < 1  # better than the mean row


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
    # What was written can be read again: the mask says which -1 is no class.
    again = {name: x[:, 0] if x.ndim > 1 else x for name, x in found.items()}
    np.savez(tmp_path / "again.npz", **again)
    read = all_examples(read_table(tmp_path / "again.npz"), open_run(run).views)
    for name in ("worst", "diagnosis"):
        np.testing.assert_array_equal(read.mask[name], np.arange(NUM_TEST) >= 5)


def test_draws_have_the_noise_of_the_likelihood(trained):
    """That of the config about what latents decode to; the same draws from the same seed."""
    opened, model, _, data = trained
    one = {"given": ["mean"], "generate": ["mean"], "num_samples": 200}
    rows, again, others = (
        predict_rows(model, opened.views, data, **one, seed=seed)[0]["mean"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(rows, again)
    assert not np.array_equal(rows, others)
    deviation = rows.std(1).mean(0) / opened.views["mean"].scale
    _, noise = opened.config.likelihood("mean")
    ratio = deviation / noise["scale"]
    assert ((ratio > 0.95) & (ratio < 2)).all(), ratio  # the latents vary, too


# What is measured


def test_likelihoods_are_of_the_user_s_units(trained):
    """Data in units c times as large have a density 1 / c times as high, for each value."""
    opened, model, _, data = trained
    factor = 7.0
    larger = opened.views | {
        name: opened.views[name]._replace(scale=factor * opened.views[name].scale) for name in VIEWS
    }
    found, shifted = (
        evaluate.likelihoods(model, views, data, jax.random.key(0), num_particles=NUM_PARTICLES)
        for views in (opened.views, larger)
    )
    values = {"joint": 3 * SIZE, "diagnosis": 0, **dict.fromkeys(VIEWS, SIZE)}
    for name, count in values.items():
        one, other = (x["log_likelihood"][name] for x in (found, shifted))
        np.testing.assert_allclose(other["mean"] - one["mean"], -count * np.log(factor), rtol=1e-5)
        assert one["num_rows"] == NUM_TEST
    change = shifted["bound"] - found["bound"]
    np.testing.assert_allclose(change, -3 * SIZE * np.log(factor), rtol=1e-5)


def test_evaluation_counts_what_is_there(run, trained, files, tmp_path, capsys):
    """Joint likelihood of incomplete rows, from the model's own estimate and the views' scales."""
    opened, model, _, _ = trained
    arrays = arrays_in(files[1])
    arrays["mean"][::2] = np.nan
    del arrays["worst"]
    np.savez(tmp_path / "some.npz", **arrays)
    options = f"--num-particles {NUM_PARTICLES} --json"
    assert mmvae("evaluate", run, tmp_path / "some.npz", options) == 0
    found = json.loads(capsys.readouterr().out)
    data = all_examples(read_table(tmp_path / "some.npz"), opened.views)
    log_p = []
    for number, part in enumerate(eval_batches(data, 128)):
        batch, key = mm.Batch(part.data, part.mask), jax.random.key(number)
        log_p.append(-np.asarray(mm.compute_joint_nll(model, batch, key, K=NUM_PARTICLES)))
    spans = {name: np.log(opened.views[name].scale).sum() for name in ("mean", "error")}
    assert min(map(abs, spans.values())) > 5
    rows = np.concatenate(log_p)[:NUM_TEST] - spans["error"] - data.mask["mean"] * spans["mean"]
    likelihood = found["log_likelihood"]
    # Other particles, which differ by a nat or so in a row: by less than 0.1 in a mean of 169.
    assert abs(likelihood["joint"]["mean"] - rows.mean()) < 0.5
    assert likelihood["joint"]["standard_error"] is None  # rows differ in what they have
    assert likelihood["mean"]["num_rows"] == NUM_TEST // 2
    assert likelihood["mean"]["standard_error"] > 0
    assert "worst" not in likelihood
    assert found["bound"] <= likelihood["joint"]["mean"]
    errors = found["reconstruction_error"]
    assert errors["diagnosis"]["from_others"] < 0.2
    assert 0 < errors["error"]["from_itself"] < 1.5
    assert sum(line.startswith("log p") for line in evaluate.lines(found)) == len(likelihood)


# What else is in a run


def test_an_exported_model_predicts_the_same(run, trained, tmp_path):
    opened, model, _, data = trained
    assert mmvae("export", run, "--platforms cpu --out", tmp_path / "exported") == 0
    told = json.loads((tmp_path / "exported" / "views.json").read_text())
    view = View.from_json(told["worst"])
    exported = mm.load_exported(tmp_path / "exported")
    x = exported.predict({"mean": data.data["mean"][:]}, return_mean=True)["worst"][:, 0]
    found, _ = predict_rows(model, opened.views, data, given=["mean"], generate=["worst"])
    # By way of another program: the last digits of sums differ.
    rows = view.to_rows(np.asarray(x), are_draws=False)
    np.testing.assert_allclose(found["worst"], rows, rtol=1e-4)


def test_info_tells_intact_from_damaged(copy, trained, capsys):
    assert mmvae("info", copy, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    summary = json.loads((copy / "summary.json").read_text())
    steps = found["steps"]
    assert all(step["damage"] is None and step["bytes"] > 1000 for step in steps.values())
    assert found["best_step"] == summary["best_step"]
    assert steps[str(found["best_step"])]["metrics"]["eval/loss"] == summary["validation_loss"]
    assert found["settings"]["run"]["validation"] == 0.1
    assert summary["num_train"] + summary["num_validation"] == NUM_TRAIN
    params = jax.tree.leaves(nnx.state(trained[1], nnx.Param))
    assert summary["num_parameters"] == sum(x.size for x in params)
    (copy / "checkpoints" / str(STEPS) / "manifest.json").write_text("{}")
    assert mmvae("info", copy / "checkpoints") == 0
    out = capsys.readouterr().out
    assert "damaged: manifest.json names no files" in out
    assert sum("intact" in line for line in out.splitlines()[1:]) == len(steps) - 1


# Ends and new starts


def test_a_preempted_run_goes_on(tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "data.npz", column=every_kind()["column"])
    options = "--steps 20 --hidden 4 --latent-dim 2 --K 1 --validation 0 --quiet"
    command = ("train", tmp_path / "data.npz", "--out", tmp_path / "run", options)
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
    assert mmvae(*command, "--resume") == 0
    history = loggers.read_jsonl(tmp_path / "run" / "history.jsonl")
    np.testing.assert_array_equal(history["step"], [10, 20])
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["best_step"] == 20


def test_a_run_goes_on_with_the_same_data_and_settings_alone(copy, files, tmp_path, capsys):
    before = contents(copy)
    arrays = arrays_in(files[0])
    arrays["labels"] = 1 - arrays["labels"]  # which figures alone look at
    arrays["error"][5] += 1e-3
    np.savez(tmp_path / "changed.npz", **arrays)
    for data, option, message in (
        (files[0], "--steps 50", f"run is at step {STEPS}"),
        (files[0], "--validation 0.2", "run.validation: 0.1 there, 0.2 now"),
        (files[0], "--beta 2", "model.beta: 1.0 there, 2.0 now"),
        (tmp_path / "changed.npz", "", "run.data.error"),
    ):
        assert mmvae("train", data, "--out", copy, TRAIN, "--quiet --resume", option) == 1
        assert message in capsys.readouterr().err
    assert contents(copy) == before


def test_nothing_is_overwritten(run, files, tmp_path, capsys):
    before = contents(run)
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
    assert contents(run) == before
    assert taken.read_text() == "precious"


# Mistakes


def holed() -> np.ndarray:
    x = np.ones((NUM_TEST, SIZE))
    x[3] = np.nan
    x[8, 4:6] = np.nan
    return x


#: What of the held-out file is changed (None: left out), the command, and its answer.
MISTAKES = {
    "train: NaN in part": (
        {"mean": holed()}, "train {data} --out {new}",
        "mean in {data}: row 8 is NaN in 2 of its 10 values",
    ),
    "train: lengths": (
        {"mean": np.ones((3, 2))}, "train {data} --out {new}",
        "{data}: data['mean'] has 3 rows, data['error'] has 169 rows",
    ),
    "train: text": (
        {"mean": np.array(["a"] * NUM_TEST)}, "train {data} --out {new}",
        "{data}: data['mean'] is an array of <U1",
    ),
    "train: pickled": (
        {"mean": np.array([None] * NUM_TEST)}, "train {data} --out {new}",
        "mean in {data} cannot be read: Object arrays",
    ),
    "train: no classes": (
        {"mean": np.arange(NUM_TEST) - 1}, "train {data} --out {new}",
        "mean in {data} holds integers from -1 to 167: say --likelihood",
    ),
    "train: a class below 0": (
        {"mean": np.arange(NUM_TEST) - 1}, "train {data} --out {new} --likelihood mean=categorical",
        "mean in {data}: row 0 holds -1, expected a class, a whole number from 0 to 167",
    ),
    "train: all missing": (
        {"mean": np.full((NUM_TEST, 2), np.nan)}, "train {data} --out {new}",
        "mean in {data}: no row to train on has it",
    ),
    "train: a mask of nothing": (
        {"mask/means": np.ones(NUM_TEST, bool)}, "train {data} --out {new}",
        "{data} holds ['mask/means'], masks of none",
    ),
    "train: labels": (
        {"labels": np.ones(NUM_TEST)}, "train {data} --out {new}", "labels in {data} is float64",
    ),
    "train: unknown name": (
        {}, "train {data} --out {new} --likelihood men=normal",
        "--likelihood names ['men'], but the modalities are ['mean'",
    ),
    "train: scale of classes": (
        {}, "train {data} --out {new} --scale diagnosis=2",
        "sets 'scale', which the bernoulli likelihood does not have",
    ),
    "train: patience": (
        {}, "train {data} --out {new} --validation 0 --patience 3", "--validation is 0",
    ),
    "train: no images": (
        {}, "train {data} --out {new} --networks conv", "no modality is an image",
    ),
    "train: no such file": ({}, "train {new} --out {new}", "there is no {new}"),
    "train: nothing to resume": ({}, "train {data} --out {new} --resume", "which holds no run"),
    "evaluate: unknown modality": (
        {"men": np.ones(NUM_TEST)}, "evaluate {run} {data}",
        "{data} holds ['men'], but the modalities are",
    ),
    "evaluate: other rows": (
        {"mean": np.ones((NUM_TEST, 9))}, "evaluate {run} {data}",
        "mean in {data} has rows of shape (9,), expected (10,)",
    ),
    "evaluate: another class": (
        {"diagnosis": np.full(NUM_TEST, 2)}, "evaluate {run} {data}",
        "diagnosis in {data}: row 0 holds 2, expected a class, a whole number from 0 to 1",
    ),
    "evaluate: no run": ({}, "evaluate {new} {data}", "holds no folder 'checkpoints'"),
    "predict: unknown modality": (
        {}, "predict {run} {data} --given men --generate mean --out {new}",
        "--given is ('men',): give 'all', or names among ['mean', 'error'",
    ),
    "predict: not in the data": (
        {"mean": None}, "predict {run} {data} --given mean --generate error --out {new}",
        "--given is ['mean'], none of which {data} holds",
    ),
    "predict: no such step": (
        {}, "predict {run} {data} --given mean --generate error --out {new} --step 7",
        "holds no step 7",
    ),
    "export: no such step": ({}, "export {run} --out {new} --step 7", "holds no step 7"),
    "export: no draws": ({}, "export {run} --out {new} --num-samples 0", "num_samples is 0"),
    "export: no run": ({}, "export {data} --out {new}", "holds no folder 'checkpoints'"),
    "info: no run": ({}, "info {new}", "holds no config.json"),
    "info: not a run": ({}, "info {data}", "holds no config.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name, run, files, tmp_path, capsys):
    changes, command, message = MISTAKES[name]
    places = {"run": run, "new": tmp_path / "new", "data": tmp_path / "data.npz"}
    arrays = arrays_in(files[1]) | changes
    np.savez(places["data"], **{name: x for name, x in arrays.items() if x is not None})
    assert mmvae(command.format(**places)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message.format(**places) in error
    assert not places["new"].exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"PK",
        lambda content: content[:-200],
        lambda content: content.replace(b"\x93NUMPY", b"\x93NUMPX"),
    ],
    ids=["no file of this kind", "cut short", "another format"],
)
def test_damaged_files_are_named(damage, files, tmp_path, capsys):
    data = tmp_path / "data.npz"
    data.write_bytes(damage(files[1].read_bytes()))
    assert mmvae("train", data, "--out", tmp_path / "run") == 1
    assert str(data) in capsys.readouterr().err


def test_damaged_checkpoints_are_named(copy, files, capsys):
    for step in (copy / "checkpoints").glob("[0-9]*"):
        (step / "manifest.json").write_text("{}")
    assert mmvae("evaluate", copy, files[1]) == 1
    assert "no step to restore" in capsys.readouterr().err
    (copy / "checkpoints" / "config.json").write_text("{")
    assert mmvae("info", copy) == 1
    assert "config.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "fly",
        "train data.npz --out run --likelihood a=poisson",
        "train data.npz --out run --scale a=wide",
        "train data.npz --out run --epochs 3 --steps 4",
        "evaluate run",
        "predict run data.npz --given a --generate b --out c --mean --num-samples 2",
        "export run",
        "info run --step 3",
    ],
)
def test_wrong_usage(command, capsys):
    with pytest.raises(SystemExit) as end:
        mmvae(command)
    assert end.value.code == 2
    assert capsys.readouterr().err


def test_a_missing_library_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tyro", None)
    for name in [name for name in sys.modules if name.startswith("mmvae_jax.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    assert mmvae("info run") == 1
    assert "mmvae needs tyro: pip install 'mmvae_jax[experiments]'" in capsys.readouterr().err
