"""Models and checkpoints that version 0.1.0 wrote are read, and its runs are resumed."""

import shutil
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from helpers.version_0_1_0.make import (
    DATA,
    OPTIONS,
    arrays_of,
    compute,
    make_networks,
    make_state,
)

import mmvae_jax as mm

FOLDER = Path(__file__).parents[1] / "helpers" / "version_0_1_0"
# The tests compile with other flags of XLA than those with which the values were computed.
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "expected.npz") as stored:
        return dict(stored)


def results_of(expected: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: expected[name] for name in ("encoded", "loss", "predicted")}


def test_parameters_are_those_in_the_file():
    """Bit for bit, however new networks begin."""
    stored = safetensors.numpy.load_file(FOLDER / "pretrained" / "model.safetensors")
    from_run, _ = mm.load(FOLDER / "checkpoints", **make_networks())
    for model in (mm.from_pretrained(FOLDER / "pretrained", **make_networks()), from_run):
        leaves = jax.tree.leaves_with_path(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
        arrays = {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves}
        chex.assert_trees_all_equal(arrays, stored)


@pytest.mark.slow
def test_a_pretrained_folder(expected):
    model = mm.from_pretrained(FOLDER / "pretrained", **make_networks())
    chex.assert_trees_all_close(compute(model), results_of(expected), **ROUNDING)


@pytest.mark.slow
def test_a_checkpoint(expected):
    model, _ = mm.load(FOLDER / "checkpoints", **make_networks())
    chex.assert_trees_all_close(compute(model), results_of(expected), **ROUNDING)


def test_an_export(expected):
    """JAX promises to read exports for six months: write new ones when it no longer can."""
    model = mm.load_exported(FOLDER / "exported")
    encoded = model.encode(DATA, return_mean=True)
    predicted = model.predict({"text": DATA["text"]}, key=jax.random.key(2))["sound"]
    np.testing.assert_allclose(encoded, expected["encoded"], **ROUNDING)
    np.testing.assert_allclose(predicted, expected["predicted"], **ROUNDING)


@pytest.mark.slow
def test_a_resumed_run(expected, tmp_path):
    folder = shutil.copytree(FOLDER / "checkpoints", tmp_path / "run")
    data = mm.MultimodalArrays(DATA)
    options = {**OPTIONS, "eval_data": data, "checkpoint_dir": folder}
    result = mm.fit(make_state(), data, num_steps=8, resume=True, **options)
    for name, x in arrays_of(result.state.model()).items():
        np.testing.assert_allclose(x, expected[name], **ROUNDING, err_msg=name)
    model, _ = mm.load(folder, step=4, **make_networks())  # now among newer steps
    chex.assert_trees_all_close(compute(model), results_of(expected), **ROUNDING)
