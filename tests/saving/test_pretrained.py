"""Loaded models are those that were saved, to the bit."""

import json
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
    arrays_of,
    assert_same,
    converted,
    custom_networks,
    default_model,
    filled,
    small_model,
    tied_model,
)
from helpers.small_model import DIMS, every_mask, make_data

import mmvae_jax as mm
from mmvae_jax import from_pretrained, save_pretrained
from mmvae_jax.networks.mlp import MLPDecoder


def assert_computes_the_same(given, expected):
    """To the bit, with missing modalities."""
    mask = every_mask()
    some = {name: m[1:] for name, m in mask.items()}
    batch = mm.Batch({name: x[1:] for name, x in make_data().items()}, some)
    for function in (mm.encode, jax.jit(mm.loss)):
        ours, theirs = (function(model, batch, jax.random.key(3)) for model in (given, expected))
        chex.assert_tree_all_finite(ours)
        chex.assert_trees_all_equal(ours, theirs)


@pytest.mark.slow
def test_custom_networks(model, folder):
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
    encoder = custom_networks()["encoders"]["a"]
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
    assert json.loads((path / "config.json").read_text())["networks"]["encoders"] == {}
    assert from_pretrained(path).encoders["a"].loc.dtype == jnp.bfloat16
    assert from_pretrained(path, dtype=jnp.float16).decoders["b"].out.dtype == jnp.float16
    assert_same(from_pretrained(path), model)


def test_tied_parameters_are_stored_once_and_tied_again(tmp_path):
    model = filled(tied_model())
    path = save_pretrained(model, tmp_path / "model")
    stored = safetensors.numpy.load_file(path / "model.safetensors")
    assert [name for name in stored if "embedding" in name] == ["decoders.caption.embedding"]
    abstract = tied_model()
    loaded = from_pretrained(path, encoders=abstract.encoders, decoders=abstract.decoders)
    assert_same(loaded, model)
    assert loaded.encoders["caption"].embedding is loaded.decoders["caption"].embedding
    other = tied_model()  # its encoder has another embedding
    message = r"encoders.caption.embedding: absent there, float\[9, 128\] now"
    with pytest.raises(ValueError, match=message):
        from_pretrained(path, encoders=other.encoders, decoders=abstract.decoders)


def test_an_untrained_prior(tmp_path):
    model = small_model(learn_prior=False)
    model.prior_log_var.set_value(jnp.array([0.5, -1.0, 0.0, 2.0]))
    path = save_pretrained(model, tmp_path / "model")
    loaded = from_pretrained(path, **custom_networks())
    assert_same(loaded, model)
    assert not isinstance(loaded.prior_log_var, nnx.Param)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_parameters_keep_their_type(model, tmp_path, dtype):
    """The saved type counts, whatever the given networks have."""
    half = converted(model, dtype)
    path = save_pretrained(half, tmp_path / "model")
    assert_same(from_pretrained(path, **custom_networks()), half)


def test_double_precision(model, tmp_path):
    with jax.enable_x64(True):
        double = converted(model, "float64")
        path = save_pretrained(double, tmp_path / "model")
        assert_same(from_pretrained(path, **custom_networks()), double)
    with pytest.raises(ValueError, match="is float64"):
        from_pretrained(path, **custom_networks())


@pytest.mark.usefixtures("four_devices")
def test_states_on_several_devices(tmp_path):
    state = mm.create_train_state(
        default_model(), optax.sgd(0.1), key=jax.random.key(0), mesh=mm.make_mesh(), fsdp=True
    )
    kernel = max(jax.tree.leaves(state.params), key=jnp.size)
    assert not kernel.sharding.is_fully_replicated
    for number, model in enumerate((state.model(), state.view())):
        loaded = from_pretrained(save_pretrained(model, tmp_path / str(number)))
        assert_same(loaded, state.model())
        assert all(len(x.sharding.device_set) == 1 for x in jax.tree.leaves(nnx.state(loaded)))


# Folders


def test_nothing_is_overwritten_unasked(model, folder, tmp_path):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(FileExistsError, match="small exists"):
        save_pretrained(model, folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="file exists"):
            save_pretrained(model, tmp_path / "file", overwrite=overwrite)
        with pytest.raises(FileExistsError, match="other exists"):
            save_pretrained(model, tmp_path / "other", overwrite=overwrite)
    assert (tmp_path / "other" / "thesis.tex").exists()


def test_new_empty_and_linked_folders(model, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    monkeypatch.chdir(tmp_path)
    for path in ("new/folder", "empty"):
        assert save_pretrained(model, path) == Path(path)
        assert_same(from_pretrained(path, **custom_networks()), model)
    save_pretrained(model, "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "link", "new"]


def test_an_overwrite_that_was_killed_loses_nothing(model, tmp_path):
    path = save_pretrained(model, tmp_path / "model")
    path.rename(tmp_path / ".model.replaced")  # killed at that moment
    assert_same(from_pretrained(path, **custom_networks()), model)
    with pytest.raises(FileExistsError, match=r"model\.replaced exists"):
        save_pretrained(model, path)
    save_pretrained(small_model(beta=2.0), path, overwrite=True)
    assert from_pretrained(path, **custom_networks()).config.beta == 2.0
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_write_that_fails_leaves_the_old_model(model, tmp_path):
    path = save_pretrained(model, tmp_path / "model")
    other = small_model(decoders_dist={"a": lambda decoded, x: -jnp.abs(decoded - x).sum()})
    with pytest.raises(ValueError, match=r"decoders_dist\['a'\] is"):
        save_pretrained(other, path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert_same(from_pretrained(path, **custom_networks()), model)
