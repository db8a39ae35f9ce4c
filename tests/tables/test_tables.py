"""Arrays in files: likelihoods by values, views to the model's input and back, mistakes."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from flax import nnx
from helpers.cli_data import NUM_TEST, arrays_in, config_of, every_kind, mmvae, split

import mmvae_jax as mm
from mmvae_jax import plots
from mmvae_jax.cli import figures
from mmvae_jax.estimator.networks import NetworkSettings
from mmvae_jax.estimator.settings import TrainingSettings
from mmvae_jax.estimator.table_model import TableModel
from mmvae_jax.networks import ConvDecoder, ConvEncoder, MLPEncoder
from mmvae_jax.tables.reading import read_tables
from mmvae_jax.tables.view_checks import check_values, in_order
from mmvae_jax.tables.view_selection import choose_view
from mmvae_jax.tables.views import View


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("kinds") / "data.npz"
    np.savez(file, **every_kind())
    return file


def test_likelihoods_follow_from_the_values(kinds):
    suggested = {
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
    found = {name: view.likelihood for name, view in split(kinds).views.items()}
    assert found == suggested
    asked = {"class": "normal", "grey": "bernoulli", "bits": "categorical", "table": "laplace"}
    found = {name: view.likelihood for name, view in split(kinds, **asked).views.items()}
    assert found == suggested | asked


def test_every_kind_fits_the_model(kinds):
    """The config and the default networks accept every view's input."""
    _, views, data, _, _ = split(kinds)
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
    assert columns["picture"].dtype == np.uint8  # divided on the device
    batch, config = mm.Batch(columns, data.mask), config_of(views)
    value = jax.eval_shape(
        lambda: mm.loss(mm.MMVAE(config, rngs=nnx.Rngs(0)), batch, jax.random.key(0))
    )
    assert jax.tree.leaves(value)


def test_rows_come_back_in_their_units(kinds):
    """``to_rows`` undoes ``to_input``, for a view from JSON."""
    everything = np.ones(12, bool)
    for name, rows in every_kind().items():
        view = split(kinds).views[name]
        x = view.to_input(rows, everything)
        if view.num_classes:
            x = np.eye(view.num_classes)[x]
        elif view.are_bytes:
            x = x / 255
        read = View.from_json(json.loads(json.dumps(view.to_json())))
        again = read.to_rows(np.asarray(x, np.float64))
        assert again.shape == rows.shape
        np.testing.assert_allclose(again, rows.astype(again.dtype), rtol=1e-5, atol=1e-6)


def test_columns_are_standardised_by_the_rows_trained_on(files):
    _, _, train, validation, _ = split(files[0], validation=0.25, seed=3)
    assert (len(train.data["mean"]), len(validation.data["mean"])) == (300, 100)
    seen = train.mask["mean"]
    x = train.data["mean"][:].astype(np.float64)
    np.testing.assert_allclose(x[seen].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(x[seen].std(0), 1, rtol=1e-5)
    assert abs(validation.data["mean"][:].mean()) > 1e-3
    assert (x[~seen] == 0).all()
    missing = np.isnan(arrays_in(files[0])["mean"]).all(1).sum()
    assert (~seen).sum() + (~validation.mask["mean"]).sum() == missing > 0


def test_a_column_that_never_varies_keeps_its_scale(tmp_path):
    values = np.random.default_rng(0).standard_normal((6, 2))
    values[:, 1] = 0.1
    np.savez(tmp_path / "data.npz", x=values)
    x = split(tmp_path / "data.npz").train.data["x"][:]
    np.testing.assert_allclose(x[:, 1], 0, atol=1e-6)


def test_a_column_that_varies_later_is_said(tmp_path):
    values = np.random.default_rng(0).standard_normal((8, 2))
    values[:, 1] = 0.1
    values[5, 1] = 4.0
    np.savez(tmp_path / "data.npz", x=values)
    whole = read_tables(tmp_path / "data.npz").modalities["x"]
    with pytest.warns(UserWarning, match=r"column 1 was 0\.1 .* is 4 in row 5"):
        choose_view(whole, np.array([0, 1, 2, 3, 4, 6, 7]))


def test_missing_cells_are_masked(tmp_path):
    """They are zeros of the model's input, and count in no mean or standard deviation."""
    x = np.random.default_rng(0).normal(3, 5, size=(6, 3))
    x[1, 2], x[4] = np.nan, np.nan
    np.savez(tmp_path / "data.npz", x=x)
    train = split(tmp_path / "data.npz").train
    np.testing.assert_array_equal(train.mask["x"], ~np.isnan(x))
    found = np.where(train.mask["x"], train.data["x"][:], np.nan)
    np.testing.assert_allclose(np.nanmean(found, 0), 0, atol=1e-6)
    np.testing.assert_allclose(np.nanstd(found, 0), 1, rtol=1e-5)
    assert (train.data["x"][:][~train.mask["x"]] == 0).all()


def test_kinds_of_whole_numbers(tmp_path):
    """Classes, counts and measurements are told apart; labels keep their values."""
    rng = np.random.default_rng(0)
    arrays = {
        "grades": np.arange(40) % 5 * 1.0,
        "age": rng.integers(18, 90, 40),
        "counts": rng.poisson(8, (40, 30)),
        "many": rng.integers(0, 15, (40, 200)),
        "years": np.array([2019, 2021])[np.arange(40) % 2],
    }
    np.savez(tmp_path / "data.npz", **arrays)
    views = split(tmp_path / "data.npz").views
    assert {name: view.likelihood for name, view in views.items()} == {
        "grades": "categorical",
        "age": "normal",
        "counts": "negative_binomial",
        "many": "negative_binomial",
        "years": "categorical",
    }
    assert views["years"].classes == (2019, 2021)
    assert views["grades"].classes == (0.0, 1.0, 2.0, 3.0, 4.0)
    everything = np.ones(40, bool)
    numbers = views["years"].to_input(arrays["years"], everything)
    np.testing.assert_array_equal(numbers, np.arange(40) % 2)
    again = views["years"].to_rows(np.eye(2)[numbers])
    np.testing.assert_array_equal(again, arrays["years"])


def test_log1p_and_its_density():
    """``log p(row)`` by the derivative of the transform, against a numerical one."""
    rows = np.random.default_rng(0).gamma(2.0, 3.0, size=(5, 2))
    table = mm.read_tables({"x": rows}).modalities["x"]
    view = choose_view(table, np.arange(5), transform="log1p")
    everything = np.ones(5, bool)
    x = view.to_input(rows, everything)
    np.testing.assert_allclose(view.to_rows(x), rows, rtol=1e-5)
    step = 1e-2
    slope = (view.to_input(rows + step, everything) - view.to_input(rows - step, everything)) / (
        2 * step
    )
    expected = np.log(slope.astype(np.float64)).sum(1)
    np.testing.assert_allclose(view.log_det(rows, everything), expected, atol=1e-3)


def test_columns_are_matched_by_name():
    rows = np.random.default_rng(0).normal(size=(5, 2))

    def table(values, *columns):
        return mm.read_tables({"x": pd.DataFrame(values, columns=columns)}).modalities["x"]

    view = choose_view(table(rows, "a", "b"), np.arange(5))
    swapped = table(rows[:, ::-1], "b", "a")
    np.testing.assert_array_equal(in_order(swapped, view, np.arange(5)), rows)
    with pytest.raises(ValueError, match=r"has other columns .* lacks \['b'\]"):
        check_values(table(rows, "a", "c"), view)


def test_a_folder_is_read_like_a_file(tmp_path):
    """A batch at a time, with masks and labels of the same names."""
    arrays = every_kind()
    mask = np.arange(12) % 4 != 0
    arrays |= {"mask/class": mask, "labels": arrays["class"]}
    np.savez(tmp_path / "data.npz", **arrays)
    folder = tmp_path / "data"
    (folder / "mask").mkdir(parents=True)
    for name, x in arrays.items():
        np.save(folder / f"{name}.npy", x)
    one, other = (split(path, validation=0.2) for path in (tmp_path / "data.npz", folder))
    assert isinstance(other.tables.modalities["picture"].values, np.memmap)
    for name in every_kind():
        assert one.tables.modalities[name].crc32 == other.tables.modalities[name].crc32
        np.testing.assert_array_equal(one.train.data[name][:], other.train.data[name][:])
        np.testing.assert_array_equal(one.train.mask[name], other.train.mask[name])
    assert one.train.mask["class"].sum() < len(one.train.mask["class"])
    np.testing.assert_array_equal(one.train.labels, other.train.labels)


def test_networks_suit_the_modalities(tmp_path):
    image = np.random.default_rng(0).integers(256, size=(4, 20, 24), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", image=image, small=image[:, :8, :8])
    views = split(tmp_path / "data.npz").views
    settings = NetworkSettings("conv", (8,))
    encoders, decoders = nnx.eval_shape(lambda: settings.build(views, 3, nnx.Rngs(0)))
    assert isinstance(encoders["image"], ConvEncoder)
    assert isinstance(encoders["small"], MLPEncoder)
    assert isinstance(decoders["image"], ConvDecoder)
    assert decoders["image"].sizes[-1] == (20, 24)
    assert decoders["image"].sigmoid


@pytest.mark.slow
def test_pictures_are_generated_from_each_other(tmp_path, monkeypatch):
    """And the map of latents has the names of the classes."""
    pictures = {name: x for name, x in every_kind().items() if name in ("column", "grey", "floats")}
    np.savez(tmp_path / "data.npz", **pictures, kind=np.array(["lung", "brain", "lung"] * 4))
    names, real = [], plots.latent_map
    monkeypatch.setattr(
        plots,
        "latent_map",
        lambda *args, **options: names.append(options) or real(*args, **options),
    )
    views = split(tmp_path / "data.npz").views
    (tmp_path / "history.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    model = mm.MMVAE(config_of(views), rngs=nnx.Rngs(0))
    trained = TableModel(model, views, NetworkSettings("mlp", (256,)))
    tables = read_tables(tmp_path / "data.npz")
    figures.draw(trained, tables, np.arange(12), tmp_path, jax.random.key(0))
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "loss.png",
        "errors.png",
        "cross_generations.png",
        "latents.png",
    }
    assert names == [{"names": ("brain", "lung")}]


def test_scales_to_train(kinds):
    """One for each column of a table; images have a fixed one, classes and bits none."""
    views = split(kinds).views
    config = TrainingSettings(scale={"grey": 0.2}).config(views)
    scales = {n: p["scale"] for n, p in config.decoder_dist_params.items() if p}
    assert set(scales) == {name for name, view in views.items() if view.has_density}
    assert scales["table"] == mm.Learned(0.5, per_feature=True)
    assert scales["grey"] == 0.2
    fixed = TrainingSettings(learn_scale=False).config(views)
    assert fixed.decoder_dist_params["table"]["scale"] == 0.5


#: Changes to the held-out file (None removes an array), options, and the start of the error.
MISTAKES = {
    "lengths": ({"mean": np.ones((3, 2))}, "", "mean in {data} has 3 rows, error in {data}"),
    "text": ({"mean": np.full((NUM_TEST, 2), "a")}, "", "mean in {data} is text of shape (169, 2)"),
    "pickled": ({"mean": np.array([None] * NUM_TEST)}, "", "mean in {data} cannot be read"),
    "a count below 0": (
        {"mean": np.arange(NUM_TEST) - 1}, "--likelihood mean=negative_binomial",
        "mean in {data}: row 0 holds -1",
    ),
    "too many classes": (
        {"mean": np.arange(1200 * NUM_TEST).reshape(NUM_TEST, 1200)},
        "--likelihood mean=categorical", "mean in {data} would become",
    ),
    "transform of classes": ({}, "--preprocess diagnosis=log1p", "transform is 'log1p', but diagn"),
    "log of a negative value": (
        {"mean": -np.ones((NUM_TEST, 2)) / 2}, "--preprocess mean=log1p",
        "mean in {data}: row 0 holds -0.5",
    ),
    "all missing": ({"mean": np.full((NUM_TEST, 2), np.nan)}, "", "mean in {data} is missing"),
    "mask": ({"mask/means": np.ones(NUM_TEST, bool)}, "", "mask/means in {data} has the unknown"),
    "labels": ({"labels": np.full(NUM_TEST, 0.5)}, "", "labels in {data} is float64"),
    "nothing": (
        dict.fromkeys(("mean", "error", "worst", "diagnosis")), "", "{data} holds no modalities",
    ),
    "likelihood": ({}, "--likelihood men=normal", "likelihood has the unknown modalities"),
    "scale": ({}, "--scale men=2", "scale has the unknown modalities ['men']"),
    "scale of classes": ({}, "--scale diagnosis=2", "decoder_dist_params['diagnosis'] sets"),
    "validation": ({}, "--validation 1", "validation is 1.0"),
    "share": ({}, "--missing 1", "missing is 1.0"),
    "two lengths": ({}, "--num-epochs 3 --num-steps 4", "num_steps is 4 and num_epochs 3"),
    "no such likelihood": ({}, "--likelihood mean=gauss", "likelihood['mean'] is 'gauss'"),
    "no such transform": ({}, "--preprocess mean=log", "preprocess['mean'] is 'log'"),
    "no such loss": ({}, "--loss dregs", "loss is 'dregs'"),
    "networks": ({}, "--networks conv", "networks is conv"),
    "hidden": ({}, "--hidden 0", "hidden is 0"),
    "resume": ({}, "--resume", "out is {new}"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name, files, tmp_path, capsys):
    changes, options, message = MISTAKES[name]
    places = {"new": tmp_path / "new", "data": tmp_path / "data.npz"}
    arrays = arrays_in(files[1]) | changes
    np.savez(places["data"], **{name: x for name, x in arrays.items() if x is not None})
    assert mmvae("train", places["data"], "--out", places["new"], options) == 1
    assert f"error: {message.format(**places)}" in capsys.readouterr().err
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


@pytest.mark.parametrize(
    "command",
    [
        "fly",
        "train data.npz --out run --scale a=wide",
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


@pytest.mark.parametrize(
    "command", ["", "train", "evaluate", "encode", "predict", "export", "info"]
)
def test_commands_explain_themselves(command, capsys):
    with pytest.raises(SystemExit) as end:
        mmvae(command, "--help")
    assert end.value.code == 0
    assert re.search(r"usage: mmvae.*\n\n[A-Z].*\.", capsys.readouterr().out)
