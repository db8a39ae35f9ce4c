"""Exported models compute the same without the model's code, for any batch and platform."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mmvae_jax as mm
from mmvae_jax.networks.images import ConvDecoder, ConvEncoder
from mmvae_jax.saving import exported as reader
from mmvae_jax.saving.export import export
from mmvae_jax.saving.exported import load_exported

DIMS = {"image": (8, 8, 1), "word": (3, 5), "table": (4,)}
CONFIG = mm.MMVAEConfig(
    input_dims=DIMS,
    decoders_dist={"image": "laplace", "word": "categorical"},
    latent_dim=3,
    K=3,
)
FILES = ("encode", "encode_mean", "decode", "predict", "predict_mean")

# The same arithmetic, compiled as another program: the last digit of a sum may differ.
ROUNDING = {"rtol": 1e-6, "atol": 1e-6}


def make_model(seed: int = 0, *, convolutions: bool = True) -> mm.MMVAE:
    rngs = nnx.Rngs(seed)
    if not convolutions:
        return mm.MMVAE(CONFIG, rngs=rngs)
    encoder = ConvEncoder((8, 8, 1), 3, features=(4, 8), hidden=16, rngs=rngs)
    decoder = ConvDecoder(3, (8, 8, 1), features=(8, 4), hidden=16, sigmoid=True, rngs=rngs)
    return mm.MMVAE(CONFIG, {"image": encoder}, {"image": decoder}, rngs=rngs)


def make_batch(num_examples: int, seed: int = 0) -> mm.Batch:
    """Random data, NaN where about half of it is missing; every example observes something."""
    rng = np.random.default_rng(seed)
    mask = rng.random((3, num_examples)) < 0.5
    mask[rng.integers(3, size=num_examples), range(num_examples)] = True
    masks = dict(zip(DIMS, mask, strict=True))
    data = {name: rng.random((num_examples, *dim), np.float32) for name, dim in DIMS.items()}
    data["word"] /= data["word"].sum(-1, keepdims=True)
    for name, x in data.items():
        x[~masks[name]] = np.nan
    return mm.Batch(data, masks)


@pytest.fixture(scope="module")
def model() -> mm.MMVAE:
    return make_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    return export(model, tmp_path_factory.mktemp("models") / "conv", num_samples=4)


@pytest.fixture(scope="module")
def exported(folder) -> reader.Exported:
    return load_exported(folder)


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """A copy of ``folder``, to damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def assert_same_values(exported: reader.Exported, model: mm.MMVAE, batch: mm.Batch) -> None:
    """Compares every program with the model, draws from the same keys included."""
    data, mask = batch.data, batch.mask
    pairs = [
        (
            exported.encode(data, mask, key=jax.random.key(1)),
            mm.encode(model, batch, jax.random.key(1), N=exported.num_samples),
        ),
        (
            exported.predict(data, mask, key=jax.random.key(2)),
            mm.predict(model, batch, jax.random.key(2), N=exported.num_samples),
        ),
        (
            exported.encode(data, mask, return_mean=True),
            mm.encode(model, batch, None, return_mean=True),
        ),
        (
            exported.predict(data, mask, return_mean=True),
            mm.predict(model, batch, None, return_mean=True),
        ),
    ]
    z = pairs[0][1]
    pairs.append((exported.decode(z), mm.decode(model, z)))
    for ours, expected in pairs:
        chex.assert_tree_all_finite(expected)
        chex.assert_trees_all_equal_shapes_and_dtypes(ours, expected)
        chex.assert_trees_all_close(ours, expected, **ROUNDING)


@pytest.mark.parametrize("num_examples", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_values_are_those_of_the_model(exported, model, num_examples):
    assert_same_values(exported, model, make_batch(num_examples))


@pytest.mark.slow
def test_values_of_default_networks(tmp_path):
    model = make_model(convolutions=False)
    (tmp_path / "empty").mkdir()
    exported = load_exported(export(model, tmp_path / "empty", platforms=("cpu",)))
    assert_same_values(exported, model, make_batch(3))


def test_conditions_on_the_given_modalities(exported, model):
    words = np.array([[0, 1, 2], [4, 4, 3]])
    others = {name: np.ones((2, *dim), np.float32) for name, dim in DIMS.items()}
    shown = mm.Batch(others | {"word": words})
    given = exported.predict({"word": words}, key=jax.random.key(0))
    expected = mm.predict(model, shown, jax.random.key(0), cond_mod="word", N=4)
    chex.assert_trees_all_close(given, expected, **ROUNDING)


def test_bytes_are_intensities(exported, model):
    images = np.random.default_rng(0).integers(256, size=(2, 8, 8, 1), dtype=np.uint8)
    mean = exported.encode({"image": images}, return_mean=True)
    batch = mm.Batch({"image": np.float32(images) / 255})
    chex.assert_trees_all_close(mean, mm.encode(model, batch, None, return_mean=True), **ROUNDING)


@pytest.mark.slow
def test_parameters_are_arguments(exported, folder, tmp_path):
    """The programs of one model with the parameters of another compute the other."""
    other = make_model(seed=1)
    params = load_exported(export(other, tmp_path / "other", platforms=("cpu",))).params
    programs = {
        name: jax.export.deserialize(bytearray((folder / f"{name}.bin").read_bytes()))
        for name in FILES
    }
    assert_same_values(reader.Exported(exported.manifest, params, programs), other, make_batch(3))


RUN = """
import importlib.util, sys
for name in ("flax", "distrax", "jaxtyping", "optax", "mmvae_jax"):
    sys.modules[name] = None  # importing it raises
import jax, numpy as np
file, folder, inputs, outputs = sys.argv[1:]
spec = importlib.util.spec_from_file_location("exported", file)
exported = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exported)
model = exported.load_exported(folder)
given = np.load(inputs)
x = model.predict({"image": given["image"], "table": given["table"]}, key=jax.random.key(7))
np.savez(outputs, **x)
"""


def test_runs_without_the_models_code(folder, model, tmp_path):
    batch = mm.Batch({name: np.ones((2, *DIMS[name]), np.float32) for name in ("image", "table")})
    np.savez(tmp_path / "in.npz", **batch.data)
    paths = [Path(reader.__file__), folder, tmp_path / "in.npz", tmp_path / "out.npz"]
    # From elsewhere: the repository itself is not on the path.
    subprocess.run([sys.executable, "-c", RUN, *map(str, paths)], check=True, cwd=tmp_path)
    with np.load(tmp_path / "out.npz") as stored:
        expected = mm.predict(model, batch, jax.random.key(7), N=4)
        chex.assert_trees_all_close(dict(stored), expected, **ROUNDING)


def test_inside_jit(exported, model):
    batch = make_batch(3)
    mean = jax.jit(lambda data, mask: exported.encode(data, mask, return_mean=True))
    expected = mm.encode(model, batch, None, return_mean=True)
    chex.assert_trees_all_close(mean(batch.data, batch.mask), expected, **ROUNDING)
    nothing = {name: np.zeros(3, bool) for name in DIMS}
    assert jnp.isnan(mean(batch.data, nothing)).all()


def test_manifest(folder, exported):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert mm.MMVAEConfig.from_dict(exported.config) == CONFIG
    assert manifest["versions"]["jax"] == jax.__version__
    assert {file.name for file in folder.iterdir()} == {"manifest.json", *manifest["sha256"]}


@pytest.mark.parametrize("file", ["decode.bin", "params.npz"])
def test_damage_is_found(copy, file):
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} is not the file that was exported"):
        load_exported(copy)
    (copy / file).unlink()
    with pytest.raises(FileNotFoundError, match=file):
        load_exported(copy)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "manifest.json is damaged"), ('{"format": 0}', "not of format 1")]
)
def test_manifests_of_another_kind(copy, text, message):
    (copy / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_exported(copy)


def test_nothing_is_overwritten(model, folder, tmp_path):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(FileExistsError, match="conv exists"):
        export(model, folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="file exists"):
        export(model, tmp_path / "file")


def one(name: str, *shape: int, dtype=np.float32) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, dtype)}


@pytest.mark.parametrize(
    ("data", "mask", "message"),
    [
        ({}, None, r"data has the modalities \[\]"),
        (one("sound", 2, 4), None, r"data has the modalities \['sound'\]"),
        (one("table", 2, 4), one("word", 2, dtype=bool), r"mask has the modalities \['word'\]"),
        (one("table", 2, 4), {"table": np.array([True, False])}, r"examples \[1\] observe nothing"),
        (
            one("table", 2, 4),
            {"table": np.ones((2, 4), bool)},
            r"mask\[.table.\] has shape \(2, 4\)",
        ),
        # jax.export finds the rest, and names the modality.
        (one("table", 2, 5), None, r"\['table'\]"),
        (one("table", 2, 4, dtype=int), None, r"\['table'\].* int32"),
        (one("word", 2, 3, 5, dtype=int), None, r"\['word'\]"),
        (one("table", 2, 4) | one("word", 3, 3, 5), None, r"\['word'\].*= 3"),
        (one("table", 0, 4), None, "value >= 1"),
        (one("table", 2, 4), {"table": np.ones(2, np.float32)}, r"\['table'\].* float32"),
        (one("table", 2, 4), {"table": np.ones(3, bool)}, r"mask\['table'\] has shape \(3,\)"),
    ],
)
def test_inputs_are_checked(exported, data, mask, message):
    with pytest.raises(ValueError, match=message):
        exported.encode(data, mask, return_mean=True)


def test_keys_and_latents_are_checked(exported):
    data = one("table", 2, 4)
    for key in (None, jax.random.key(0, impl="rbg"), jax.random.split(jax.random.key(0))):
        with pytest.raises(ValueError, match="key is"):
            exported.encode(data, key=key)
    with pytest.raises(ValueError, match=r"z has shape \(2, 4\), expected \(..., 3\)"):
        exported.decode(np.zeros((2, 4)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"platforms": ("cpu", "gpu")}, "platforms is"),
        ({"platforms": ()}, "platforms is"),
        ({"num_samples": 0}, "num_samples is 0"),
    ],
)
def test_options_are_checked(model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export(model, tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()


class UnusualEncoder(nnx.Module):
    """Parameters in half precision, and a random stream."""

    def __init__(self, rngs: nnx.Rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.linear = nnx.Linear(4, 6, param_dtype=jnp.bfloat16, rngs=rngs)

    def __call__(self, x):
        return tuple(jnp.split(self.linear(self.dropout(x)), 2, axis=-1))


@pytest.mark.slow
def test_unusual_models(tmp_path):
    """Half precision, random layers, and a likelihood that JSON cannot hold."""
    config = CONFIG.replace(decoders_dist={"table": lambda decoded, x: -jnp.abs(decoded - x).sum()})
    model = mm.MMVAE(config, {"table": UnusualEncoder(nnx.Rngs(0))}, rngs=nnx.Rngs(0))
    exported = load_exported(export(model, tmp_path / "model", platforms=("cpu",)))
    assert exported.params["encoders.table.linear.kernel"].dtype == jnp.bfloat16
    assert "lambda" in exported.config["decoders_dist"]["table"]
    assert_same_values(exported, model, make_batch(3))


class CountingEncoder(nnx.Module):
    def __call__(self, x):
        return jnp.zeros((len(x), 3)), jnp.zeros((len(x), 3))


def test_a_network_that_needs_the_batch_size(tmp_path):
    model = mm.MMVAE(CONFIG, {"table": CountingEncoder()}, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError) as error:
        export(model, tmp_path / "model")
    assert "not len(x)" in "".join(error.value.__notes__)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_convolutions_of_each_platform(model, tmp_path, platform):
    """Matrix products on CPU, native convolutions elsewhere, in the same program."""
    path = export(model, tmp_path / "one", platforms=(platform,))
    module = jax.export.deserialize(bytearray((path / "predict.bin").read_bytes())).mlir_module()
    assert ("stablehlo.convolution" in module) == (platform != "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["auto", "dense", "sparse", "sampled", "residual"])
def test_train_step_lowers_for_accelerators(model, kind):
    """Programs for accelerators lower here, though they cannot run."""
    state = mm.create_train_state(model, optax.adam(1e-3), key=jax.random.key(0))
    leaves, treedef = jax.tree.flatten(state)

    def step(leaves, batch, backward):
        state, metrics = mm.train_step(treedef.unflatten(leaves), batch, backward=backward)
        return jax.tree.leaves(state), metrics

    # Leaves: stages describe arguments in a TrainState's place, which type checks refuse.
    traced = jax.jit(step, static_argnums=2).trace(leaves, make_batch(8), mm.Backward(kind))
    text = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert "stablehlo.convolution" not in text["cpu"]
    assert "stablehlo.convolution" in text["cuda"]
    assert "stablehlo.convolution" in text["tpu"]
