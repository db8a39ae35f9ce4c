"""Arrays in files: likelihoods by values, views to the model's input and back, mistakes."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from helpers.cli_data import NUM_TEST, SIZE, arrays_in, config_of, every_kind, mmvae, split

import mmvae_jax as mm
from mmvae_jax.cli import figures
from mmvae_jax.cli.networks import NetworkSettings
from mmvae_jax.cli.train import Train
from mmvae_jax.networks import ConvDecoder, ConvEncoder, MLPEncoder
from mmvae_jax.tables.reading import read_tables
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
    _, views, data, _ = split(kinds)
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
    """``to_rows`` undoes ``to_input``, for a view from JSON and logits of the values."""
    everything = np.ones(12, bool)
    for name, rows in every_kind().items():
        view = split(kinds).views[name]
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
    _, _, train, validation = split(files[0], validation=0.25, seed=3)
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
        choose_view(whole, None, np.array([0, 1, 2, 3, 4, 6, 7]))


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
    assert isinstance(other.table.modalities["picture"].values, np.memmap)
    for name in every_kind():
        assert one.table.modalities[name].crc32 == other.table.modalities[name].crc32
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
def test_pictures_are_generated_from_each_other(tmp_path):
    pictures = {name: x for name, x in every_kind().items() if name in ("column", "grey", "floats")}
    np.savez(tmp_path / "data.npz", **pictures)
    _, views, data, _ = split(tmp_path / "data.npz")
    (tmp_path / "history.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    model = mm.MMVAE(config_of(views), rngs=nnx.Rngs(0))
    figures.draw(model, views, data, tmp_path, jax.random.key(0))
    assert {path.name for path in tmp_path.glob("*.png")} == {"loss.png", "cross_generations.png"}


def with_holes() -> np.ndarray:
    x = np.ones((NUM_TEST, SIZE))
    x[3] = np.nan
    x[8, 4:6] = np.nan
    return x


#: Changes to the held-out file (None removes an array), options, and the start of the error.
def test_scales_to_train(kinds):
    """One for each column of a table and one for an image; classes and bits have none."""
    views = split(kinds).views
    train = Train(data=kinds, out=kinds.parent, scale={"grey": 0.2}, learn_scale=True)
    config = train._config(views)
    scales = {n: p["scale"] for n, p in config.decoder_dist_params.items() if p}
    assert set(scales) == {name for name, view in views.items() if view.has_density}
    assert scales["table"] == mm.Learned(0.5, per_feature=True)
    assert scales["grey"] == mm.Learned(0.2)


MISTAKES = {
    "NaN in part": ({"mean": with_holes()}, "", "mean in {data}: row 8 is NaN in 2 of its 10"),
    "lengths": ({"mean": np.ones((3, 2))}, "", "mean in {data} has 3 rows, error in {data}"),
    "text": ({"mean": np.full((NUM_TEST, 2), "a")}, "", "mean in {data} is text of shape (169, 2)"),
    "pickled": ({"mean": np.array([None] * NUM_TEST)}, "", "mean in {data} cannot be read"),
    "no classes": (
        {"mean": np.arange(NUM_TEST) - 1}, "", "mean in {data} holds integers from -1 to 167",
    ),
    "a class below 0": (
        {"mean": np.arange(NUM_TEST) - 1}, "--likelihood mean=categorical",
        "mean in {data}: row 0 holds -1",
    ),
    "all missing": ({"mean": np.full((NUM_TEST, 2), np.nan)}, "", "mean in {data} is missing"),
    "mask": ({"mask/means": np.ones(NUM_TEST, bool)}, "", "mask/means in {data} has the unknown"),
    "labels": ({"labels": np.full(NUM_TEST, 0.5)}, "", "labels in {data} is float64"),
    "nothing": (
        dict.fromkeys(("mean", "error", "worst", "diagnosis")), "", "{data} holds no modalities",
    ),
    "likelihood": ({}, "--likelihood men=normal", "--likelihood has the unknown modalities"),
    "scale": ({}, "--scale men=2", "--scale has the unknown modalities ['men']"),
    "scale of classes": ({}, "--scale diagnosis=2", "decoder_dist_params['diagnosis'] sets"),
    "patience": ({}, "--validation 0 --patience 3", "--patience is 3"),
    "validation": ({}, "--validation 1", "--validation is 1.0"),
    "networks": ({}, "--networks conv", "--networks is conv"),
    "hidden": ({}, "--hidden 0", "--hidden is [0]"),
    "resume": ({}, "--resume", "--out is {new}"),
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


@pytest.mark.parametrize(
    "command", ["", "train", "evaluate", "encode", "predict", "export", "info"]
)
def test_commands_explain_themselves(command, capsys):
    with pytest.raises(SystemExit) as end:
        mmvae(command, "--help")
    assert end.value.code == 0
    assert re.search(r"usage: mmvae.*\n\n[A-Z].*\.", capsys.readouterr().out)
