"""The files of saved models: their content, and the errors about content that does not fit."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from helpers.saved_models import (
    FILES,
    Constant,
    arrays_of,
    assert_same,
    custom_networks,
    small_model,
)
from helpers.small_model import SmallEncoder, make_model

import mmvae_jax as mm
from mmvae_jax.saving.pretrained import from_pretrained, save_pretrained


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
    saved = json.loads((folder / "config.json").read_text())
    stored = safetensors.numpy.load_file(folder / "model.safetensors")
    assert saved["format"] == 2
    assert mm.MMVAEConfig.from_dict(saved["model"]) == model.config
    assert saved["networks"]["decoders"]["c"] == "helpers.small_model.SmallDecoder"
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
    networks = custom_networks()
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
    message = r"encoders.a.odd.int: int32\[3\] there, float\[3\] now"
    with pytest.raises(ValueError, match=message):
        from_pretrained(path, **networks)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (True, "encoders.a.odd.x is bool"),
        (jax.ShapeDtypeStruct((3,), jnp.float32), "encoders.a.odd.x is ShapeDtypeStruct"),
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
    with pytest.raises(ValueError, match=r"several arrays 'decoders.a.b.c'"):
        save_pretrained(model, tmp_path / "model")


# Damage


def rewrite(**changes):
    def harm(folder):
        saved = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(saved | changes))

    return harm


def harm_weights(change):
    def harm(folder):
        file = folder / "model.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return harm


def flip(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def other_weights(folder):
    """Writes another file, with its sha256 in config.json."""
    weights = safetensors.numpy.save({"prior_log_var": np.zeros(4, np.float32)})
    (folder / "model.safetensors").write_bytes(weights)
    rewrite(sha256=hashlib.sha256(weights).hexdigest())(folder)


def remove(name):
    return lambda folder: (folder / name).unlink()


def write_config(content):
    return lambda folder: (folder / "config.json").write_text(content)


DIFFERS = "model.safetensors .* is cut short, damaged or of another model"
DAMAGES = {
    "weights cut short": (harm_weights(lambda x: x[:-1]), DIFFERS),
    "weights with a flipped bit": (harm_weights(flip), DIFFERS),
    "weights of another model": (
        other_weights,
        r"(?s)do not have the arrays .*out.bias: absent",
    ),
    "no weights": (remove("model.safetensors"), "copy holds no model.safetensors"),
    "no config": (remove("config.json"), "copy holds no config.json"),
    "config of a run": (
        write_config('{"model": {}, "run": {}}'),
        "config.json has the format None",
    ),
    "newer format": (rewrite(format=3), "has the format 3"),
    "unknown entry": (rewrite(novelty=1), "config.json cannot be read: .*novelty"),
    "missing entry": (write_config('{"format": 2}'), "config.json cannot be read: 'model'"),
    "invalid field": (rewrite(model={"input_dims": {"a": 0}}), "config.json cannot be read"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_named(copy, kind):
    harm, message = DAMAGES[kind]
    harm(copy)
    kinds = FileNotFoundError if kind.startswith("no ") else ValueError
    with pytest.raises(kinds, match=message):
        from_pretrained(copy, **custom_networks())


def test_networks_of_another_architecture(copy):
    other = nnx.eval_shape(make_model)
    other.encoders["a"] = nnx.eval_shape(lambda: SmallEncoder((7,), 4, "a"))
    other.decoders["c"].extra = nnx.Param(jnp.zeros(2))
    del other.decoders["b"].out.bias
    with pytest.raises(ValueError, match="arrays of the model in") as error:
        from_pretrained(copy, encoders=other.encoders, decoders=other.decoders)
    assert str(error.value).splitlines()[1:] == [
        "  decoders.b.out.bias: float[16] there, absent now",
        "  encoders.a.hidden.kernel: float[6, 8] there, float[7, 8] now",
        "  decoders.c.extra: absent there, float[2] now",
        "(3 differences.) Give networks of the architecture that was saved.",
    ]
    networks = custom_networks()
    networks["decoders"]["d"] = Constant()
    with pytest.raises(ValueError, match=r"decoders has the unknown modalities \['d'\]"):
        from_pretrained(copy, **networks)
