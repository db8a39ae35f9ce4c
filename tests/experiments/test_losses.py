"""The comparison of losses: runs, table, figure, shared classifiers, and resumed runs."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.official_files import write_mnist
from helpers.stopped_runs import stoppable_fit

import mmvae_jax as mm
from experiments import (
    coherence_measurements,
    digits,
    figures,
    image_measurements,
    losses,
    measurements,
    mnist_pairs,
    runs,
)
from experiments.losses import SHOWN, LossesConfig
from mmvae_jax import plots
from mmvae_jax.metrics import classifier

ROOT = Path(__file__).parents[2]
LOSSES = ("dreg_looser", "elbo")
TINY = {"hidden": 8, "latent_dim": 2, "K": 2, "batch_size": 16, "num_test": 20, "num_samples": 20}
DIGITS = partial(
    digits.DigitsConfig, **TINY | {"hidden": (8,)}, modalities=2, pairings=1, num_particles=5
)
PAIRS = partial(mnist_pairs.MNISTPairsConfig, **TINY, num_particles=5)


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """Tiny experiments, small batches and no t-SNE."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(losses.EXPERIMENTS, "digits", DIGITS)
        patch.setitem(losses.EXPERIMENTS, "mnist_pairs", PAIRS)
        # Every module that reads CHUNK has a name for it.
        readers = (measurements, image_measurements, coherence_measurements, figures, classifier)
        for module in readers:
            patch.setattr(module, "CHUNK", 16)
        quick = partial(classifier.train_classifier, num_steps=2)
        patch.setattr(measurements, "train_classifier", quick)
        patch.setattr(plots, "project_2d", lambda z: z[:, :2])
        patch.setattr(runs, "use_compilation_cache", lambda: None)
        yield


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_run(loss="dreg_looser", *, experiment="digits", seed=0, **values):
    """The metrics of a run that the table and the figure show."""
    measured = {path: values.get(path, 0.5) for path in SHOWN if "/" not in path}
    nested = {
        "log_likelihood": {"joint": {"mean": -3.0}},
        "encoder_gradient": {"signal_to_noise": 2.0},
    }
    config = {"loss": loss, "seed": seed}
    return {"experiment": experiment, "preset": "default", "config": config, **measured, **nested}


def panels(figure) -> np.ndarray:
    """Returns the axes by row and column."""
    return np.array(figure.axes).reshape(-1, len(SHOWN))


@pytest.mark.slow
def test_a_stopped_comparison_is_resumed(tmp_path, monkeypatch, capsys):
    config = LossesConfig(
        losses=LOSSES,
        experiments=("digits",),
        seeds=(3, 4),
        num_steps=2,
        num_gradients=3,
        out=tmp_path / "losses",
    )
    out = config.out / "digits"
    killed_before, started = stoppable_fit(
        lambda options: (options["checkpointing"].settings["loss"], options["seed"])
    )

    monkeypatch.setattr(mm, "fit", killed_before(3))
    with pytest.raises(KeyboardInterrupt):
        losses.main(config)
    before = contents(config.out)
    assert {path.name for path in out.iterdir()} == {"classifiers", *LOSSES}
    assert {path.name for path in (out / "classifiers").iterdir()} == {"m0.npz", "m1.npz"}

    with pytest.raises(ValueError, match=r"out is .*losses, which is not empty"):
        losses.main(config)
    assert contents(config.out) == before

    def trained_again(*_):
        pytest.fail("classifiers were trained again")

    monkeypatch.setattr(losses, "classifiers_of", trained_again)
    monkeypatch.setattr(mm, "fit", killed_before(4))
    resumed = LossesConfig(**{**vars(config), "resume": True})
    capsys.readouterr()
    found = losses.main(resumed)
    assert started == [(loss, seed) for loss in LOSSES for seed in (3, 4)]
    assert [(run["config"]["loss"], run["config"]["seed"]) for run in found] == started
    for run in found:
        folder = out / run["config"]["loss"] / f"seed{run['config']['seed']}"
        # The cosine of so few gradients may be NaN, which equals itself here.
        np.testing.assert_equal(run, json.loads((folder / "metrics.json").read_text()))
        assert run["steps"] == 2
        assert run["log_likelihood"]["num_examples"] == 20  # all test examples
        assert {*run["encoder_gradient"]} == {"signal_to_noise", "cosine"}
        assert np.isfinite([losses.report.metric(run, path) for path in SHOWN]).all()
    # All runs use the same classifiers.
    judged = [list(run["classifier_accuracy"].values()) for run in found]
    assert judged == judged[:2] * 2  # the test examples depend on the seed
    after = contents(config.out)
    assert {path: after[path] for path in before} == before
    assert (config.out / "losses.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out.splitlines()
    for loss in LOSSES:
        # In the last table, of all runs; the table of one loss does not name the loss.
        assert any(line.startswith(f"| digits default, `loss={loss}` | 2 |") for line in printed)

    np.testing.assert_equal(losses.main(resumed), found)
    assert set(contents(config.out)) == set(after)


@pytest.mark.slow
def test_real_experiments_share_the_table_and_the_figure(tmp_path, capsys):
    write_mnist(tmp_path / "data/mnist")
    config = LossesConfig(
        losses=("stl_looser",),
        seeds=(0,),
        num_steps=2,
        num_gradients=3,
        data_dir=tmp_path / "data",
        out=tmp_path / "losses",
    )
    found = losses.main(config)
    assert [run["experiment"] for run in found] == ["digits", "mnist_pairs"]
    printed = capsys.readouterr().out.splitlines()
    for name in losses.EXPERIMENTS:
        assert any(line.startswith(f"| {name} default | 1 |") for line in printed)
        assert (config.out / name / "classifiers" / "m1.npz").exists()


def test_the_figure_has_a_point_for_every_run():
    found = [
        one_run(loss, experiment=name, seed=seed, test_bound=10 * i + seed)
        for name in ("digits", "mnist_pairs")
        for i, loss in enumerate(("iwae_looser", "dreg_looser"))
        for seed in (0, 1, 2)
    ]
    found[0]["log_likelihood"] = None
    grid = panels(losses.draw(found))
    assert grid.shape == (2, len(SHOWN))
    assert [axes.get_title(loc="left") for axes in grid[0]] == [*SHOWN.values()]
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["digits", "mnist_pairs"]
    for axes in grid[:, 0]:
        points = [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines]
        assert points == [([0, 0, 0], [0, 1, 2]), ([1, 1, 1], [10, 11, 12])]
        heights = [bar.get_segments()[0][0][1] for bar in axes.collections]
        assert heights == [1, 11]  # the means
        assert [text.get_text() for text in axes.get_xticklabels()] == ["iwae", "dreg"]
        assert axes.lines[0].get_color() != axes.lines[1].get_color()
    # The limits do not magnify differences: ratios start at 0, nats span a tenth of their size.
    for axes, path in zip(grid[0], SHOWN, strict=True):
        low, high = axes.get_ylim()
        if path in ("test_bound", "log_likelihood/joint/mean"):
            assert high - low > 0.1 * max(abs(low), abs(high)) - 1e-9
        else:
            assert low == 0
            assert high >= 1
    # A run without a likelihood has no point.
    assert [len(line.get_xdata()) for line in grid[0, 1].lines] == [2, 3]
    assert [len(line.get_xdata()) for line in grid[1, 1].lines] == [3, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": ("dregs",)}, r"losses is \('dregs',\)"),
        ({"losses": ()}, r"losses is \(\)"),
        ({"losses": ("stl", "stl")}, r"losses is \('stl', 'stl'\)"),
        ({"experiments": ("cub",)}, r"experiments is \('cub',\)"),
        ({"seeds": ()}, r"seeds is \(\)"),
        ({"seeds": (1, 1)}, r"seeds is \(1, 1\)"),
        ({"num_gradients": 1}, "num_gradients is 1"),
        ({"num_gradients": 0}, "num_gradients is 0"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"resume": True}, "resume is True"),
        (
            {"experiments": ("mnist_pairs",), "data_dir": ROOT},
            r"lacks mnist/train-images-idx3-ubyte\.gz",
        ),
    ],
)
def test_mistakes_are_named_before_anything_is_written(changes, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        losses.main(LossesConfig(**{"out": tmp_path / "losses"} | changes))
    assert not (tmp_path / "losses").exists()
