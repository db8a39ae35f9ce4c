"""The files of saved models: what they hold, and what is refused, with a reason."""

import hashlib
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from helpers.saved_models import FILES, Constant, arrays_of, assert_same, own_networks, small_model
from helpers.small_model import SmallEncoder, make_model

import mmvae_jax as mm
from mmvae_jax.saving.pretrained import from_pretrained, save_pretrained


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return save_pretrained(model, tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def copy(folder, tmp_path):
    """Of the folder, to do damage to."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


class OddEncoder(nnx.Module):
    """Variables of many kinds, and a random stream."""

    def __init__(self, odd, seed=0):
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(seed))
        self.odd = nnx.Dict({name: nnx.Variable(x) for name, x in odd.items()})


def odd_model(odd):
    model = small_model()
    model.encoders["a"] = OddEncoder(odd)
    return model


def test_files(model, folder):
    assert {file.name for file in folder.iterdir()} == FILES
    told = json.loads((folder / "config.json").read_text())
    stored = safetensors.numpy.load_file(folder / "model.safetensors")
    assert told["format"] == 1
    assert mm.MMVAEConfig.from_dict(told["model"]) == model.config
    assert told["arrays"] == {name: f"{x.dtype}{list(x.shape)}" for name, x in stored.items()}
    assert told["arrays"]["encoders.a.hidden.kernel"] == "float32[6, 8]"
    assert told["networks"]["decoders"]["c"] == "small_model.SmallDecoder"
    assert {name: x.tobytes() for name, x in stored.items()} == {
        name: content for name, (_, _, content) in arrays_of(model).items()
    }
    modes = {file.stat().st_mode for file in folder.iterdir()}
    assert len(modes) == 1  # who can read the card can read the weights


def test_variables_of_many_kinds(tmp_path):
    odd = {
        "transposed": np.arange(6.0, dtype=np.float32).reshape(2, 3).T,
        "scalar": jnp.float32(3),
        "empty": jnp.zeros((0, 3)),
        "int": jnp.arange(3),
        "flag": np.array([True, False]),
    }
    model = odd_model(odd)
    path = save_pretrained(model, tmp_path / "model")
    stored = safetensors.numpy.load_file(path / "model.safetensors")
    for name, x in odd.items():
        given = stored[f"encoders.a.odd.{name}"]
        np.testing.assert_array_equal(given, x, strict=True)
    assert not any("rngs" in name for name in stored)  # streams stay behind
    networks = own_networks()
    networks["encoders"]["a"] = OddEncoder(odd, seed=1)
    loaded = from_pretrained(path, **networks)
    assert_same(loaded, model)
    saved, given, kept = (
        jax.random.key_data(encoders["a"].dropout.rngs.key[...])
        for encoders in (model.encoders, networks["encoders"], loaded.encoders)
    )
    assert (kept == given).all()
    assert (kept != saved).all()
    networks["encoders"]["a"].odd["int"] = nnx.Variable(jnp.zeros(3))
    message = r"encoders.a.odd.int: int32\[3\] there, float32\[3\] now"
    with pytest.raises(ValueError, match=message):
        from_pretrained(path, **networks)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (3.0, "encoders.a.odd.x is float, which model.safetensors cannot hold"),
        (True, "encoders.a.odd.x is bool, which model.safetensors cannot hold"),
        (jax.ShapeDtypeStruct((3,), jnp.float32), "encoders.a.odd.x is ShapeDtype"),
        (jnp.zeros(3, jnp.float8_e4m3fn), "encoders.a.odd.x is float8_e4m3fn"),
        (jax.random.key(0), r"encoders.a.odd.x is key<fry>"),
    ],
)
def test_variables_that_the_file_cannot_hold(tmp_path, x, message):
    with pytest.raises(ValueError, match=message):
        save_pretrained(odd_model({"x": x}), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_two_arrays_of_one_name(tmp_path):
    config = mm.MMVAEConfig(input_dims={"a": (1,), "a.b": (1,)})
    networks = {
        "a": Constant(b=Constant(c=nnx.Param(jnp.ones(1)))),
        "a.b": Constant(c=nnx.Param(jnp.ones(1))),
    }
    model = mm.MMVAE(config, networks, networks, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"several arrays 'decoders.a.b.c': rename a modality"):
        save_pretrained(model, tmp_path / "model")


def test_functions_are_refused(tmp_path):
    model = small_model(decoders_dist={"a": lambda decoded, x: -jnp.abs(decoded - x).sum()})
    with pytest.raises(ValueError, match=r"decoders_dist\['a'\] is .*, which JSON cannot"):
        save_pretrained(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


# Damage


def rewrite(**changes):
    def harm(folder):
        told = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(told | changes))

    return harm


def set_field(name, value):
    def harm(folder):
        told = json.loads((folder / "config.json").read_text())
        told["model"][name] = value
        (folder / "config.json").write_text(json.dumps(told))

    return harm


def harm_weights(change):
    def harm(folder):
        file = folder / "model.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return harm


def flip(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def other_weights(folder):
    """Another file in its place, of which config.json knows."""
    weights = safetensors.numpy.save({"prior_log_var": np.zeros(4, np.float32)})
    (folder / "model.safetensors").write_bytes(weights)
    rewrite(sha256=hashlib.sha256(weights).hexdigest())(folder)


def remove(name):
    return lambda folder: (folder / name).unlink()


def write_config(content):
    return lambda folder: (folder / "config.json").write_bytes(content)


SHORT = r"model.safetensors \(\d+ bytes\) is cut short, damaged or of another model: its sha256"
DAMAGES = {
    "weights cut short": (harm_weights(lambda x: x[:-1]), SHORT),
    "weights with a flipped bit": (harm_weights(flip), SHORT),
    "weights that are none": (harm_weights(lambda x: b"version git-lfs"), SHORT),
    "weights of another model": (other_weights, r"(?s)does not hold what .*out.bias: absent there"),
    "no weights": (remove("model.safetensors"), "copy lacks model.safetensors"),
    "no config": (remove("config.json"), "copy lacks config.json: give a folder of save"),
    "torn config": (write_config(b'{"format"'), "config.json cannot be read: Expecting"),
    "binary config": (write_config(b"\xff\xfe\x00"), "config.json cannot be read: 'utf-8'"),
    "config that is no object": (write_config(b"[]"), "config.json .* format is None, expected 1"),
    "config of a run": (write_config(b'{"model": {}, "run": {}}'), "format is None.*mm.load"),
    "newer format": (rewrite(format=2), "format is 2, expected 1.*the version that wrote it"),
    "unknown entry": (rewrite(novelty=1), "config.json cannot be read: .*novelty"),
    "lacking entry": (write_config(b'{"format": 1}'), "config.json cannot be read: 'model'"),
    "unknown field": (set_field("novelty", 1), r"config.json .* unknown config fields \['novelty'"),
    "other latent size": (
        set_field("latent_dim", 5),
        r"(?s)do not have the arrays .*prior_log_var: float32\[4\] there, float32\[5\] now",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_named(copy, kind):
    harm, message = DAMAGES[kind]
    harm(copy)
    kinds = FileNotFoundError if kind.startswith("no ") else ValueError
    with pytest.raises(kinds, match=message):
        from_pretrained(copy, **own_networks())


def test_networks_of_another_architecture(copy):
    (copy / "model.safetensors").unlink()  # it is not even looked at
    other = nnx.eval_shape(make_model)
    other.encoders["a"] = nnx.eval_shape(lambda: SmallEncoder((7,), 4, "a"))
    other.decoders["c"].extra = nnx.Param(jnp.zeros(2))
    del other.decoders["b"].out.bias
    with pytest.raises(ValueError, match="arrays of the model in") as error:
        from_pretrained(copy, encoders=other.encoders, decoders=other.decoders)
    assert str(error.value).splitlines()[1:] == [
        "  decoders.b.out.bias: float32[16] there, absent now",
        "  encoders.a.hidden.kernel: float32[6, 8] there, float32[7, 8] now",
        "  decoders.c.extra: absent there, float32[2] now",
        "(3 differences.) Give networks of the architecture that was saved.",
    ]
    networks = own_networks()
    networks["decoders"]["d"] = Constant()
    with pytest.raises(ValueError, match=r"decoders has the unknown modalities \['d'\]"):
        from_pretrained(copy, **networks)
