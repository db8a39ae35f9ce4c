"""Names of modalities that methods have, and paths: taken where they can be, or refused by name."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mmvae_jax as mm
from mmvae_jax.inputs.paths import as_path
from mmvae_jax.saving.files import whole_file, write_npz
from mmvae_jax.training.checkpoint import Checkpoints


def make_model(*names):
    config = mm.MMVAEConfig(
        input_dims=dict.fromkeys(names, (3,)),
        decoder_dist_params={name: {"scale": mm.Learned(0.5)} for name in names},
        latent_dim=2,
    )
    return mm.MMVAE(config, rngs=nnx.Rngs(1))


@pytest.mark.parametrize("names", [("values", "items", "keys"), ("get", "update", "file", "self")])
def test_modalities_named_like_methods_are_saved(names, tmp_path):
    model = make_model(*names)
    batch = mm.Batch({name: jnp.ones((4, 3)) for name in names})
    loaded = mm.from_pretrained(mm.save_pretrained(model, tmp_path / "saved"))
    want, got = (mm.encode(m, batch, None, return_mean=True) for m in (model, loaded))
    np.testing.assert_array_equal(got, want)
    assert loaded.likelihood_params(names[0])["scale"] == 0.5


@pytest.mark.parametrize("name", ["deterministic", "__class__", "_pytree__x"])
def test_attributes_of_flax_are_refused(name):
    with pytest.raises(ValueError, match=f"modality name '{name}'"):
        make_model(name)


def test_archives_hold_arrays_of_any_name(tmp_path):
    arrays = {"file": np.arange(3), "mask/self": np.ones(2, bool)}
    file = tmp_path / "out.npz"
    with whole_file(file) as opened:
        write_npz(opened, arrays)
    with np.load(file) as stored:
        assert {name: stored[name].tolist() for name in stored} == {
            "file": [0, 1, 2],
            "mask/self": [True, True],
        }


def test_paths_are_local(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("~/run", b"~/run", Path("~/run")):
        assert as_path(given) == tmp_path / "run"
    assert Checkpoints("~/run", config={}).directory == tmp_path / "run"


@pytest.mark.parametrize(
    "path", ["s3://b/x", "gs://b", Path("s3://b/x"), "http://a/b", "", 3, None]
)
def test_addresses_and_other_types_are_refused(path):
    with pytest.raises(ValueError, match=r"^folder is "):
        as_path(path, "folder")
