"""Loaded models are those that were saved, to the bit; and folders are written whole."""

import json
import shutil
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
import safetensors.numpy
from flax import nnx
from helpers.saved_models import (
    CONFIG,
    Constant,
    arrays_of,
    assert_same,
    converted,
    default_model,
    filled,
    own_networks,
    small_model,
    tied_model,
)
from helpers.small_model import DIMS, every_mask, make_data

import mmvae_jax as mm
from mmvae_jax.networks.mlp import MLPDecoder
from mmvae_jax.saving import pretrained
from mmvae_jax.saving.pretrained import from_pretrained, save_pretrained


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return save_pretrained(model, tmp_path_factory.mktemp("models") / "small")


def assert_computes_the_same(given, expected):
    """To the bit, with missing modalities."""
    mask = every_mask()
    some = {name: m[1:] for name, m in mask.items()}
    batch = mm.Batch({name: x[1:] for name, x in make_data().items()}, some)
    for function in (mm.encode, jax.jit(mm.loss)):
        ours, theirs = (function(model, batch, jax.random.key(3)) for model in (given, expected))
        chex.assert_tree_all_finite(ours)
        chex.assert_trees_all_equal(ours, theirs)


def test_networks_of_ones_own(model, folder):
    other = converted(model, "float32")
    before = arrays_of(other)
    assert before != arrays_of(model)
    loaded = from_pretrained(folder, encoders=other.encoders, decoders=other.decoders)
    assert_same(loaded, model)
    assert_computes_the_same(loaded, model)
    assert arrays_of(other) == before


def test_default_networks_need_no_arguments(tmp_path):
    model = default_model()
    loaded = from_pretrained(str(save_pretrained(model, tmp_path / "model")))
    assert_same(loaded, model)
    assert_computes_the_same(loaded, model)
    assert nnx.split(loaded)[0] == nnx.split(model)[0]


def test_some_default_networks(tmp_path):
    encoder = own_networks()["encoders"]["a"]
    default = nnx.eval_shape(lambda: mm.MMVAE(CONFIG, rngs=nnx.Rngs(0)))
    encoders = dict(default.encoders.items()) | {"a": encoder}
    model = filled(mm.MMVAE(CONFIG, encoders, dict(default.decoders.items()), rngs=nnx.Rngs(0)))
    path = save_pretrained(model, tmp_path / "model")
    assert_same(from_pretrained(path, encoders={"a": encoder}), model)
    with pytest.raises(
        ValueError, match=r"encoders\['a'\]: helpers.small_model.SmallEncoder\nGive"
    ):
        from_pretrained(path, encoders={"b": model.encoders["b"]})


def test_a_default_network_but_for_its_sigmoid_must_be_given(tmp_path):
    """The same arrays would compute something else."""
    decoder = nnx.eval_shape(lambda: MLPDecoder(4, DIMS["b"], sigmoid=False, rngs=nnx.Rngs(0)))
    default = default_model()
    decoders = dict(default.decoders.items()) | {"b": decoder}
    model = filled(mm.MMVAE(CONFIG, dict(default.encoders.items()), decoders, rngs=nnx.Rngs(0)))
    path = save_pretrained(model, tmp_path / "model")
    with pytest.raises(ValueError, match=r"decoders\['b'\]: mmvae_jax.networks.mlp.MLPDecoder"):
        from_pretrained(path)
    loaded = from_pretrained(path, decoders={"b": decoder})
    assert_same(loaded, model)
    assert not loaded.decoders["b"].sigmoid


def test_default_networks_compute_in_the_same_type(tmp_path):
    model = default_model(dtype=jnp.bfloat16)
    path = save_pretrained(model, tmp_path / "model")
    assert from_pretrained(path).encoders["a"].loc.dtype == jnp.bfloat16
    assert from_pretrained(path, dtype=jnp.float16).decoders["b"].out.dtype == jnp.float16
    assert_same(from_pretrained(path), model)
    assert set(arrays_of(model)) == set(json.loads((path / "config.json").read_text())["arrays"])


def test_tied_parameters_are_stored_once_and_tied_again(tmp_path):
    model = filled(tied_model())
    path = save_pretrained(model, tmp_path / "model")
    stored = safetensors.numpy.load_file(path / "model.safetensors")
    assert [name for name in stored if "embedding" in name] == ["decoders.caption.embedding"]
    abstract = tied_model()
    loaded = from_pretrained(path, encoders=abstract.encoders, decoders=abstract.decoders)
    assert_same(loaded, model)
    assert loaded.encoders["caption"].embedding is loaded.decoders["caption"].embedding
    other = tied_model()  # its encoder has an embedding of its own
    message = r"encoders.caption.embedding: absent there, float32\[9, 128\] now"
    with pytest.raises(ValueError, match=message):
        from_pretrained(path, encoders=other.encoders, decoders=abstract.decoders)


def test_an_untrained_prior(tmp_path):
    model = small_model(learn_prior=False)
    model.prior_log_var.set_value(jnp.array([0.5, -1.0, 0.0, 2.0]))
    path = save_pretrained(model, tmp_path / "model")
    loaded = from_pretrained(path, **own_networks())
    assert_same(loaded, model)
    assert not isinstance(loaded.prior_log_var, nnx.Param)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_parameters_keep_their_type(model, tmp_path, dtype):
    """Which is the saved one, whatever the networks that are given have."""
    half = converted(model, dtype)
    path = save_pretrained(half, tmp_path / "model")
    assert_same(from_pretrained(path, **own_networks()), half)


def test_double_precision(model, tmp_path):
    with jax.enable_x64(True):
        double = converted(model, "float64")
        path = save_pretrained(double, tmp_path / "model")
        assert_same(from_pretrained(path, **own_networks()), double)
    with pytest.raises(ValueError, match="is float64, which JAX has made float32: load the"):
        from_pretrained(path, **own_networks())


@pytest.mark.parametrize("of", ["model", "view"])
def test_states_on_eight_devices(tmp_path, of):
    state = mm.create_train_state(
        default_model(), optax.sgd(0.1), key=jax.random.key(0), mesh=mm.make_mesh(), fsdp=True
    )
    kernel = max(jax.tree.leaves(state.params), key=jnp.size)
    assert len(kernel.sharding.device_set) == 8
    assert not kernel.sharding.is_fully_replicated
    path = save_pretrained(getattr(state, of)(), tmp_path / "model")
    loaded = from_pretrained(path)
    assert_same(loaded, state.model())
    assert all(len(x.sharding.device_set) == 1 for x in jax.tree.leaves(nnx.state(loaded)))


# Folders


def test_nothing_is_overwritten_unasked(model, folder, tmp_path):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(FileExistsError, match=r"small holds a saved model: .* overwrite=True"):
        save_pretrained(model, folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    (tmp_path / "file").touch()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.tex").touch()
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="file is a file: give a folder"):
            save_pretrained(model, tmp_path / "file", overwrite=overwrite)
        with pytest.raises(FileExistsError, match=r"own holds 'thesis.tex', which is no file of a"):
            save_pretrained(model, tmp_path / "own", overwrite=overwrite)
    assert (tmp_path / "own" / "thesis.tex").exists()


def test_new_empty_and_linked_folders(model, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    monkeypatch.chdir(tmp_path)
    for path in ("new/folder", "empty"):
        assert save_pretrained(model, path) == Path(path)
        assert_same(from_pretrained(path, **own_networks()), model)
    save_pretrained(model, "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "link", "new"]


class Killed(BaseException):
    """Ends the process, which then cleans nothing up."""


def kill_at(monkeypatch, moment):
    """Let the process end before the `moment`-th change to the disk (of an overwrite)."""
    changes = 0

    def counting(function):
        def call(*args, **kwargs):
            nonlocal changes
            changes += 1
            if changes >= moment:
                raise Killed
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(pretrained.shutil, "rmtree", counting(shutil.rmtree))
    for name in ("mkdir", "write_bytes", "rename"):
        monkeypatch.setattr(Path, name, counting(getattr(Path, name)))


def test_an_overwrite_that_is_killed_loses_nothing(tmp_path):
    networks = {"encoders": {"a": Constant()}, "decoders": {"a": Constant()}}
    model, other = (
        mm.MMVAE(mm.MMVAEConfig(input_dims={"a": (1,)}, beta=beta), **networks, rngs=nnx.Rngs(0))
        for beta in (1.0, 2.0)
    )
    path, outcomes = tmp_path / "model", []
    for moment in range(1, 12):
        save_pretrained(model, path, overwrite=True)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, moment)
            try:
                save_pretrained(other, path, overwrite=True)
                killed = False
            except Killed:
                killed = True
        outcomes.append((killed, from_pretrained(path, **networks).config.beta))
    # Remove leftovers, make a folder, write three files, remove leftovers, rename the folder that
    # is there, rename the new one; and remove leftovers again, twice.
    assert outcomes == [(True, 1.0)] * 8 + [(True, 2.0)] * 2 + [(False, 2.0)]
    save_pretrained(model, path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_model_that_was_set_aside_is_not_overwritten_unasked(model, tmp_path):
    path = save_pretrained(model, tmp_path / "model")
    path.rename(tmp_path / ".model.replaced")  # killed at that moment
    with pytest.raises(FileExistsError, match="holds a saved model"):
        save_pretrained(model, path)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_write_that_fails_leaves_what_was_there(model, folder, tmp_path, monkeypatch):
    path = save_pretrained(model, tmp_path / "model")
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(small_model(beta=2.0), path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert from_pretrained(path, **own_networks()).config.beta == 1.0
