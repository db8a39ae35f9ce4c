"""The comparison of numbers of experts in equal seconds, in small."""

import json
import time

import chex
import numpy as np
import pytest
from flax import nnx

import mmvae_jax as mm
from experiments import experts_drawn
from experiments.experts_drawn import ExpertsDrawnConfig, Run, initial_state, main, table
from experiments.polymnist import NETWORKS
from mmvae_jax.data import Splits
from mmvae_jax.data.datasets.polymnist import IMAGE_SHAPE
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder

CONFIG = ExpertsDrawnConfig(latent_dim=2, K=1, batch_size=2, num_test=2)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return mm.MultimodalArrays(
        {f"m{m}": rng.integers(256, size=(4, 28, 28, 3), dtype=np.uint8) for m in range(5)}
    )


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    make = (
        lambda d, rngs: MLPEncoder(IMAGE_SHAPE, d, hidden=(2,), rngs=rngs),
        lambda d, rngs: MLPDecoder(d, IMAGE_SHAPE, hidden=(2,), sigmoid=True, rngs=rngs),
    )
    monkeypatch.setitem(NETWORKS, "mlp", make)


def test_runs_differ_in_the_number_of_experts_only():
    """With all five, none are drawn."""
    states = {experts: initial_state(CONFIG, experts, seed=3) for experts in (5, 2)}
    chex.assert_trees_all_equal(states[5].params, states[2].params)
    assert [state.model().config.experts_per_step for state in states.values()] == [None, 2]


def test_a_run_trains_until_its_own_seconds_have_passed(images, monkeypatch):
    """The clock of CPU time runs in steps only, and compilation is not counted."""
    now = iter(range(1000))
    taken = []

    def step(state, batch):
        taken.append(batch)
        return state, {}

    monkeypatch.setattr(mm, "train_step", step)
    monkeypatch.setattr(time, "process_time", lambda: next(now))
    monkeypatch.setattr(experts_drawn, "initial_state", lambda *_: nnx.Dict())
    run = Run(CONFIG, 2, 0, images)
    assert (run.num_steps, run.seconds, len(taken)) == (0, 0.0, 1)
    run.train(3.0)
    run.train(5.0)
    assert (run.num_steps, run.seconds) == (5, 5.0)
    # Both see the first batch: the step that compiles, and the first step of the run.
    np.testing.assert_array_equal(taken[0].data["m0"], taken[1].data["m0"])


@pytest.mark.slow
def test_rows_are_kept_and_completed(images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(experts_drawn, "load", lambda config: Splits(images, images))
    settings = {"latent_dim": 2, "K": 1, "batch_size": 2, "seeds": (0,), "seconds": 0.02}
    first = main(ExpertsDrawnConfig(experts=(1,), num_turns=2, out=tmp_path, **settings))
    rows = main(ExpertsDrawnConfig(experts=(5, 1), num_turns=2, out=tmp_path, **settings))
    assert rows[:2] == first
    assert [(row["experts"], row["seconds"]) for row in rows] == [
        (1, 0.01),
        (1, 0.02),
        (5, 0.01),
        (5, 0.02),
    ]
    assert all(row["train_seconds"] >= row["seconds"] for row in rows)
    assert rows == list(map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines()))
    assert "ms per step" in capsys.readouterr().out


def test_the_table_has_means_over_seeds():
    rows = [
        {"experts": 2, "seconds": t, "num_steps": 10 * t, "train_seconds": t, "test_bound": b}
        for t, b in ((1.0, -8.0), (1.0, -6.0), (2.0, -4.0))
    ]
    assert table(rows).splitlines()[-1].split() == ["2", "100", "20", "-7.0", "-4.0"]


@pytest.mark.parametrize(
    ("field", "value"), [("experts", (6,)), ("num_turns", 0), ("seconds", 0.0), ("networks", "vit")]
)
def test_wrong_settings(field, value):
    with pytest.raises(ValueError, match=f"{field} is "):
        ExpertsDrawnConfig(**{field: value})
