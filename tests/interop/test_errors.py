"""What of MultiVae's cannot be converted exactly is refused, with a way out."""

import json
import pickle
import sys

import numpy as np
import pytest
from helpers.multivae_cases import Stored

from mmvae_jax.interop import load_multivae


@pytest.fixture
def small():
    return Stored("normal")


@pytest.fixture
def images():
    return Stored("mnist_svhn_text")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "MVTCAEConfig"}, "name is 'MVTCAEConfig': this is no MMVAE"),
        ({"recon_losses": None}, r"fields \['recon_losses'\], which MultiVae 1.0 does not know"),
        ({"input_dims": None}, "input_dims is None: give the shapes in MultiVae's order"),
        ({"input_dims": {"image": 784}}, r"input_dims\['image'\] is 784: give a tuple of sizes"),
        ({"n_modalities": 3}, "n_modalities is 3, but input_dims has 2"),
        ({"learn_prior": "maybe"}, "learn_prior is 'maybe': give True or False"),
        ({"loss": "elbo_looser"}, "loss is 'elbo_looser': choose one of"),
        ({"decoder_dist_params": {"bits": {"scale": 1}}}, "bernoulli likelihood does not have"),
        ({"latent_dim": 4}, r"embedding.weight is \(3, 512\), expected \(4, 512\)"),
    ],
)
def test_settings(small, fields, message):
    with pytest.raises(ValueError, match=message):
        load_multivae(small.state, {**small.config, **fields})


def test_a_state_dict_needs_settings(small):
    with pytest.raises(ValueError, match="config is None, but a state dict says nothing"):
        load_multivae(small.state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prior_mean": np.ones((1, 3))}, r"prior_mean is \[\[1.0, 1.0, 1.0\]\]: a prior whose"),
        ({"prior_mean": None}, r"hold \{'prior_log_var': \(1, 3\)\}, expected prior_mean and"),
        ({"logvars": np.ones(3)}, "'logvars'.*, expected prior_mean and"),
        ({"encoders.sound.c1.bias": np.ones(3)}, "'encoders.sound.c1.bias', but input_dims has"),
        ({"teacher.image.weight": np.ones(3)}, "'teacher.image.weight', but input_dims has"),
        (
            {
                "encoders.bits.embedding.weight": np.ones((3, 256)),
                "encoders.bits.log_var.bias": None,
            },
            r"encoders\['bits'\] is none of \['Encoder_VAE_MLP'\]: 2 things differ, such as "
            r"embedding.weight is \(3, 256\), expected \(3, 512\); log_var.bias is missing, "
            r"expected \(3,\). Give encoders=\{'bits': module\}, an NNX module that holds",
        ),
        (
            {"decoders.bits.layers.2.0.weight": np.ones((5, 5))},
            r"1 things differ, such as layers.2.0.weight is \(5, 5\), expected none",
        ),
    ],
)
def test_parameters(small, changes, message):
    state = {name: x for name, x in {**small.state, **changes}.items() if x is not None}
    with pytest.raises(ValueError, match=message):
        load_multivae(state, small.config)


def test_networks_that_look_alike(images):
    message = (
        r"decoders\['mnist'\] may be any of \['Decoder_AE_MLP', 'CubTextDecoderMLP'\], whose "
        r"parameters look alike: say which, as in decoders=\{'mnist': 'Decoder_AE_MLP'\}"
    )
    with pytest.raises(ValueError, match=message):
        images.load(decoders=None)


def test_networks_that_are_not_the_default(images):
    """Without ``custom_architectures`` they are taken for MultiVae's default, and found out."""
    config = {**images.config, "custom_architectures": []}
    message = (
        r"encoders\['svhn'\] is none of \['Encoder_VAE_MLP'\]: .* It can be Encoder_VAE_SVHN: if "
        r"so, give encoders=\{'svhn': 'Encoder_VAE_SVHN'\}"
    )
    with pytest.raises(ValueError, match=message):
        images.load(config=config)
    decoders = {"svhn": "Decoder_VAE_SVHN", "text": "CubTextDecoderMLP"}
    images.load(config=config, encoders={"svhn": "Encoder_VAE_SVHN"}, decoders=decoders)


@pytest.mark.parametrize(
    ("encoders", "message"),
    [
        ({"svhn": "MyEncoder"}, r"'MyEncoder', which is not converted: known are \['Encoder_VAE"),
        (
            {"svhn": "EncoderResnetMMNIST"},
            "not converted: its residual blocks apply the activation",
        ),
        ({"svhn": "Encoder_VAE_MLP"}, r"is none of \['Encoder_VAE_MLP'\]: 1[0-9] things differ"),
        ({"sound": "Encoder_VAE_MLP"}, r"encoders has the unknown modalities \['sound'\]"),
    ],
)
def test_classes(images, encoders, message):
    with pytest.raises(ValueError, match=message):
        images.load(encoders=encoders)


def test_images_of_another_size(images):
    """The kernels would fit, but the heads see 4 x 4 pixels and no more."""
    dims = {**images.config["input_dims"], "svhn": [3, 64, 64]}
    named = {"svhn": "Encoder_VAE_SVHN"}
    message = r"such as input_dims is \(3, 64, 64\), expected \(3, 32, 32\)"
    with pytest.raises(ValueError, match=message):
        images.load(config={**images.config, "input_dims": dims}, encoders=named)


@pytest.mark.parametrize(
    ("held", "added", "message"),
    [
        (["Mine"], [], r"encoders\['mnist'\] is none of \[\]: .* It can be Encoder_VAE_MLP: if so"),
        (["Mine"], ["film"], r"is none of \[\]: .* and so on. Give encoders=\{'mnist': module\}"),
        (["EncoderResnetMMNIST"], ["film"], "EncoderResnetMMNIST is not converted: its residual"),
        (b"\x80\x05no pickle", [], r"encoders.pkl cannot be read: .*; put the file back, or"),
    ],
)
def test_pickled_networks(tmp_path, images, held, added, message):
    added = {f"encoders.mnist.{name}.weight": np.ones(3) for name in added}
    (tmp_path / "model_config.json").write_text(json.dumps(images.config))
    np.savez(tmp_path / "model.npz", **images.state, **added)
    content = held if isinstance(held, bytes) else pickle.dumps(held)
    (tmp_path / "encoders.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_multivae(tmp_path)


def test_files(tmp_path, small, monkeypatch):
    config = tmp_path / "model_config.json"
    with pytest.raises(FileNotFoundError, match=r"holds no model_config.json: give the folder"):
        load_multivae(tmp_path)
    config.write_text(json.dumps(small.config))
    with pytest.raises(FileNotFoundError, match=r"holds neither model.pt nor model.npz"):
        load_multivae(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'mmvae_jax\[torch\]', or save its arrays"):
        load_multivae(tmp_path)
    config.write_text("{")
    with pytest.raises(ValueError, match=r"model_config.json cannot be read: Expecting"):
        load_multivae(tmp_path)
    config.write_text("[]")
    with pytest.raises(ValueError, match=r"model_config.json holds a list, expected an object"):
        load_multivae(tmp_path)
