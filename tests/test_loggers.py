"""Loggers: rows read back as they were logged, in killed and resumed runs too."""

import json
import math
import struct
import sys
import types

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.small_model import make_data, make_model
from matplotlib.figure import Figure

import mmvae_jax as mm
from mmvae_jax import loggers, plots
from mmvae_jax.loggers import cross_generations, jsonl, read_jsonl

IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.fixture(scope="module")
def state() -> mm.TrainState:
    return mm.create_train_state(make_model(), optax.sgd(0.1), key=jax.random.key(0))


def log_steps(file, state, steps, offset=0.0):
    """Logs steps as one process of a run does."""
    log = jsonl(file)
    for step in steps:
        log(step, {"loss": step + offset}, state)


# jsonl


def test_numbers_read_back_as_they_were(tmp_path, state):
    single = np.random.default_rng(0).standard_normal(100, np.float32)
    log = jsonl(tmp_path / "new" / "log.jsonl")
    for step, x in enumerate(single):
        log(step, {"numpy": x, "jax": jax.numpy.float32(x), "python": 1 / (step + 3)}, state)
    columns = read_jsonl(tmp_path / "new" / "log.jsonl")
    assert columns["step"].dtype == np.int64
    assert (columns["step"] == np.arange(100)).all()
    for name in ("numpy", "jax"):
        assert (columns[name].astype(np.float32) == single).all()
    assert (columns["python"] == [1 / (step + 3) for step in range(100)]).all()


def test_rows_are_json(tmp_path, state):
    jsonl(tmp_path / "log.jsonl")(3, {"kl": 0.1}, state)
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 3, "kl": 0.1}


def test_numbers_that_are_not_finite_and_columns_with_gaps(tmp_path, state):
    log = jsonl(tmp_path / "log.jsonl")
    log(1, {"loss": math.nan}, state)
    log(1, {"eval/loss": -math.inf}, state)
    log(2, {"loss": math.inf, "eval/loss": 2.0}, state)
    columns = read_jsonl(tmp_path / "log.jsonl")
    np.testing.assert_array_equal(columns["step"], [1, 1, 2])
    np.testing.assert_array_equal(columns["loss"], [math.nan, math.nan, math.inf])
    np.testing.assert_array_equal(columns["eval/loss"], [math.nan, -math.inf, 2])


@pytest.mark.parametrize(
    ("first", "second", "num_kept"),
    [
        ((10, 20, 30), (40, 50), 3),  # killed right after a checkpoint
        ((10, 20, 30), (30, 40), 2),  # some steps after it
        ((10, 20, 30), (10, 20), 0),  # before the first
        ((10, 20, 30), (25, 35), 2),  # resumed with another interval
        ((10, 20, 30), (), 3),  # and killed again before anything was logged
        ((), (10, 20), 0),
    ],
)
def test_a_resumed_run(tmp_path, state, first, second, num_kept):
    file = tmp_path / "log.jsonl"
    log_steps(file, state, first)
    log_steps(file, state, second, offset=0.5)
    columns, kept = read_jsonl(file), first[:num_kept]
    np.testing.assert_array_equal(columns["step"], kept + second)
    np.testing.assert_array_equal(columns["loss"], [*kept, *(step + 0.5 for step in second)])


def test_a_last_line_cut_anywhere(tmp_path, state):
    file = tmp_path / "log.jsonl"
    log_steps(file, state, (1, 2))
    whole = file.read_text()
    second = whole.index("\n") + 1
    for cut in range(len(whole) + 1):
        file.write_text(whole[:cut])
        finished = [step for step, end in ((1, second), (2, len(whole))) if end <= cut]
        assert read_jsonl(file).get("step", np.array([])).tolist() == finished
        log_steps(file, state, (3, 4))
        assert read_jsonl(file)["step"].tolist() == [*finished, 3, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize("text", ["notes\n", "[1]\n", '{"loss": 1}\n', '{"step": 1}\n{"st\n'])
def test_other_files_are_refused_and_kept(tmp_path, state, text):
    file = tmp_path / "log.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"line {text.count(chr(10))} of .*log.jsonl is"):
        jsonl(file)(1, {"loss": 1.0}, state)
    with pytest.raises(ValueError, match=r"line . of .*log.jsonl is"):
        read_jsonl(file)
    assert file.read_text() == text


def test_step_is_no_metric(tmp_path, state):
    with pytest.raises(ValueError, match=r"metrics\['step'\] is 3"):
        jsonl(tmp_path / "log.jsonl")(1, {"step": 3}, state)


# Services


def test_tensorboard(tmp_path, state, monkeypatch):
    """The event files of two processes, read back: the second one hides what it repeats."""
    tensorboardX = pytest.importorskip("tensorboardX")
    writers, make = [], tensorboardX.SummaryWriter
    monkeypatch.setattr(
        tensorboardX, "SummaryWriter", lambda *a, **k: writers.append(make(*a, **k)) or writers[-1]
    )
    for step, loss in ((30, 1.5), (20, 1.25)):
        log = loggers.tensorboard(tmp_path, images=lambda _: {"grid": IMAGE}, images_every=10)
        log(step, {"loss": np.float32(loss)}, state)
        writers[-1].close()
    events = sorted(read_events(tmp_path), key=lambda event: event.wall_time)
    values = [(event.step, value) for event in events for value in event.summary.value]
    scalars = [(step, v.simple_value) for step, v in values if v.tag == "loss"]
    assert scalars == [(30, 1.5), (20, 1.25)]
    sizes = {(v.image.height, v.image.width) for _, v in values if v.tag == "grid"}
    assert sizes == {(4, 6)}
    starts = [e.step for e in events if e.HasField("session_log")]  # later steps are hidden
    assert starts == [30, 20]


def read_events(folder):
    from tensorboardX.proto.event_pb2 import Event

    for file in folder.iterdir():
        content = file.read_bytes()
        while content:  # length (8 bytes), its checksum (4), the event, its checksum (4)
            (length,) = struct.unpack("<Q", content[:8])
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


class Recorder:
    """Stands in for a library or a run, and records the calls."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args, **options: self.calls.append((name, args, options))


def test_wandb(state, monkeypatch):
    fake = types.SimpleNamespace(Image=lambda pixels: ("Image", pixels.tobytes()))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    run = Recorder()
    log = loggers.wandb(run, images=lambda _: {"grid": IMAGE}, images_every=10)
    log(9, {"loss": np.float32(1.5)}, state)
    log(9, {"eval/loss": 2.0}, state)
    row = {"loss": 1.5, "grid": ("Image", IMAGE.tobytes())}
    assert run.calls == [("log", (row,), {"step": 9}), ("log", ({"eval/loss": 2.0},), {"step": 9})]
    assert type(run.calls[0][1][0]["loss"]) is float


def test_mlflow(state, monkeypatch):
    client = Recorder()
    monkeypatch.setitem(sys.modules, "mlflow", client)
    client.active_run = lambda: None
    with pytest.raises(ValueError, match=r"mlflow.active_run\(\) is None"):
        loggers.mlflow()
    client.active_run = object
    loggers.mlflow(images=lambda _: {"grid": IMAGE})(9, {"loss": np.float32(1.5)}, state)
    assert client.calls == [
        ("log_metrics", ({"loss": 1.5},), {"step": 9}),
        ("log_image", (IMAGE,), {"key": "grid", "step": 9}),
    ]


@pytest.mark.parametrize(
    ("library", "make"),
    [
        ("tensorboardX", lambda: loggers.tensorboard("run")),
        ("wandb", lambda: loggers.wandb(None)),
        ("mlflow", loggers.mlflow),
    ],
)
def test_a_missing_library_is_named(monkeypatch, library, make):
    monkeypatch.setitem(sys.modules, library, None)
    extra = library.lower().rstrip("x")
    with pytest.raises(ImportError, match=rf"{library} is missing: .*mmvae_jax\[{extra}\]"):
        make()


def test_pictures_come_first_and_after_every_interval(state, monkeypatch):
    drawn = []
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(Image=lambda x: x))
    run = Recorder()
    images = lambda given: drawn.append(given) or {"grid": IMAGE}  # noqa: E731
    log = loggers.wandb(run, images=images, images_every=100)
    for step in (7, 14, 99, 100, 107, 350, 399, 400):
        log(step, {}, state)
    steps = [options["step"] for _, (row,), options in run.calls if "grid" in row]
    assert steps == [7, 100, 350, 400]
    assert all(given is state for given in drawn)
    with pytest.raises(ValueError, match="images_every is 0"):
        loggers.wandb(run, images=images, images_every=0)


# Pictures


def image_batch() -> mm.Batch:
    """Returns three examples; the second misses b, the only image."""
    data = {name: x[:3] for name, x in make_data().items()}
    present = np.ones(3, bool)
    data["b"] = data["b"].at[1].set(np.nan)
    return mm.Batch(data, {"a": present, "b": np.array([True, False, True]), "c": present})


def test_cross_generations_are_those_of_reconstruct(state, monkeypatch):
    calls = []
    real = plots.cross_generation_grid
    monkeypatch.setattr(
        plots, "cross_generation_grid", lambda *args: calls.append(args) or real(*args)
    )
    batch = image_batch()
    draw = cross_generations(batch, jax.random.key(3), num=2)
    (picture,) = draw(state).values()
    ((given, generated),) = calls
    few = jax.tree.map(lambda x: x[:2], batch)
    logits = mm.reconstruct(state.model(), few, jax.random.key(3))["b"]["b"][:, 0]
    assert list(given) == list(generated) == list(generated["b"]) == ["b"]  # only images
    np.testing.assert_array_equal(given["b"][0], batch.data["b"][0])
    np.testing.assert_allclose(generated["b"]["b"][0], jax.nn.sigmoid(logits[0]), rtol=1e-6)
    assert (given["b"][1] == 1).all()
    assert (generated["b"]["b"][1] == 1).all()
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    (again,) = draw(state).values()
    assert (again == picture).all()


def test_bytes_are_drawn_as_intensities(state):
    grey = (make_data()["b"] * 100).astype(np.uint8)
    (ours,) = cross_generations(mm.Batch({"b": grey}), jax.random.key(3))(state).values()
    batch = mm.Batch({"b": np.float32(grey) / 255})
    (expected,) = cross_generations(batch, jax.random.key(3))(state).values()
    np.testing.assert_array_equal(ours, expected)


def test_counts_are_drawn_by_their_means(monkeypatch):
    """The largest observed count is white, and missing images are."""
    calls = []
    monkeypatch.setattr(
        plots, "cross_generation_grid", lambda *args: calls.append(args) or Figure()
    )
    config = mm.MMVAEConfig(
        input_dims={"x": (2, 2, 1)}, decoders_dist={"x": "poisson"}, latent_dim=2, K=1
    )
    state = mm.create_train_state(
        mm.MMVAE(config, rngs=nnx.Rngs(0)), optax.identity(), key=jax.random.key(0)
    )
    x = np.array([[1, 2, 0, 40], [255] * 4, [3, 50, 7, 9]], np.uint8).reshape(3, 2, 2, 1)
    batch = mm.Batch({"x": x}, {"x": np.array([True, False, True])})
    cross_generations(batch, jax.random.key(3))(state)
    ((given, generated),) = calls
    np.testing.assert_allclose(given["x"][[0, 2]], x[[0, 2]] / 50, rtol=1e-6)
    decoded = mm.reconstruct(state.model(), batch, jax.random.key(3))["x"]["x"][:, 0]
    expected = np.exp(decoded[np.array([0, 2])]) / 50
    np.testing.assert_allclose(generated["x"]["x"][[0, 2]], expected, rtol=1e-5)
    assert (given["x"][1] == 1).all()
    assert (generated["x"]["x"][1] == 1).all()


def test_cross_generations_need_images_and_matplotlib(monkeypatch):
    batch = mm.Batch({"a": make_data()["a"]})
    with pytest.raises(ValueError, match=r"batch.data has shapes {'a': \(8, 6\)}"):
        cross_generations(batch, jax.random.key(0))
    with pytest.raises(ValueError, match="num is 0"):
        cross_generations(mm.Batch(make_data()), jax.random.key(0), num=0)
    monkeypatch.setitem(sys.modules, "mmvae_jax.plots", None)
    with pytest.raises(ImportError, match=r"mmvae_jax\[experiments\]"):
        cross_generations(mm.Batch(make_data()), jax.random.key(0))
