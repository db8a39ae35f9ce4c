"""Settings, networks and parameters that cannot be converted exactly are refused."""

import json
import sys

import numpy as np
import pytest

from mmvae_jax.interop import load_multivae


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "MVTCAEConfig"}, "name is 'MVTCAEConfig'"),
        ({"modalities_specific_dim": 2}, r"fields \['modalities_specific_dim'\]"),
        ({"name": "MMVAEPlusConfig", "learn_prior": True}, r"fields \['learn_prior'\], which"),
        ({"recon_losses": None}, r"fields \['recon_losses'\]"),
        ({"input_dims": None}, "input_dims is None"),
        ({"input_dims": {"image": 784}}, r"input_dims\['image'\] is 784"),
        ({"n_modalities": 3}, "n_modalities is 3"),
        ({"learn_prior": "False"}, "learn_prior is 'False'"),
        ({"loss": "elbo_looser"}, "loss is 'elbo_looser'"),
        ({"latent_dim": 4}, r"embedding.weight is \(3, 512\), expected \(4, 512\)"),
    ],
)
def test_settings(small, fields, message):
    with pytest.raises(ValueError, match=message):
        load_multivae(small.state, {**small.config, **fields})


def test_a_state_dict_needs_settings(small):
    with pytest.raises(ValueError, match="config is None"):
        load_multivae(small.state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prior_mean": np.ones((1, 3))}, r"prior_mean is \[\[1.0, 1.0, 1.0\]\]"),
        ({"prior_mean": None}, r"1 differences, such as prior_mean is missing, expected \(1, 3\)"),
        ({"logvars": np.ones(3)}, r"name is 'MMVAEConfig', but .*logvars is \(3,\), expected none"),
        ({"encoders.sound.c1.bias": np.ones(3)}, "hold 'encoders.sound.c1.bias'"),
        ({"teacher.image.weight": np.ones(3)}, r"teacher.image.weight is \(3,\), expected none"),
        (
            {
                "encoders.bits.embedding.weight": np.ones((3, 256)),
                "encoders.bits.log_var.bias": None,
            },
            r"encoders\['bits'\] is 'Encoder_VAE_MLP', but its parameters have 2 differences, such "
            r"as embedding.weight is \(3, 256\), expected \(3, 512\); log_var.bias is missing, "
            r"expected \(3,\)",
        ),
        (
            {"decoders.bits.layers.2.0.weight": np.ones((5, 5))},
            r"1 differences, such as layers.2.0.weight is \(5, 5\), expected none",
        ),
    ],
)
def test_parameters(small, changes, message):
    state = {name: x for name, x in {**small.state, **changes}.items() if x is not None}
    with pytest.raises(ValueError, match=message):
        load_multivae(state, small.config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modalities_specific_dim": None}, "modalities_specific_dim is None"),
        ({"modalities_specific_dim": {"image": 2, "bits": 2}}, r"modalities_specific_dim is \{"),
        ({"number_of_clusters": 1}, "number_of_clusters is 1: give an integer of at least 2"),
        ({"number_of_clusters": 4}, r"mean_clusters.4 is \(1, 3\), expected none"),
        ({"learn_shared_prior": True}, r"fields \['learn_shared_prior'\], which .* CMVAEConfig"),
        ({"reconstruction_option": "prior"}, "reconstruction_option is 'prior'"),
        ({"latent_dim": 2}, r"embedding.weight is \(3, 512\), expected \(2, 512\)"),
        ({"modalities_specific_dim": 4}, r"style_embedding.weight is \(2, 512\), expected \(4, "),
    ],
)
def test_settings_of_private_latents_and_clusters(clusters, fields, message):
    with pytest.raises(ValueError, match=message):
        clusters.load(config={**clusters.config, **fields})


@pytest.mark.parametrize("name", ["w_mean_prior", "r_mean_priors.bits"])
def test_locations_of_private_priors(clusters, name):
    state = {**clusters.state, name: np.array([[0, 0.5]])}
    with pytest.raises(ValueError, match=rf"{name} is \[\[0.0, 0.5\]\]: only priors of location 0"):
        load_multivae(state, clusters.config)


def test_the_location_of_a_shared_prior(private):
    state = {**private.state, "mean_priors.shared": np.ones((1, 7))}
    with pytest.raises(ValueError, match=r"mean_priors.shared is \[\[1.0, "):
        load_multivae(state, private.config)


def test_another_model_s_parameters(private, clusters):
    fields = {**clusters.config, "name": "MMVAEPlusConfig"}
    del fields["number_of_clusters"]
    message = r"name is 'MMVAEPlusConfig', but .*mean_priors.image is missing, expected \(1, 2\)"
    with pytest.raises(ValueError, match=message):
        clusters.load(config=fields)


def test_encoders_without_a_private_latent(private):
    choices = r"one of \['Encoder_VAE_MLP_Style', 'EncoderConvMMNIST_multilatents', 'EncoderResnet"
    with pytest.raises(ValueError, match=rf"encoders\['table'\] is 'Encoder_VAE_MLP': .*{choices}"):
        private.load(encoders={"table": "Encoder_VAE_MLP"})


def test_networks_that_multivae_was_given_have_to_be_named(images):
    choices = (
        r"decoders=\{'svhn': class\}, one of \['Decoder_AE_MLP', 'CubTextDecoderMLP', "
        r"'Decoder_VAE_SVHN', 'DecoderConvMMNIST', 'DecoderResnetMMNIST'\]; or an NNX module"
    )
    decoders = {name: kind for name, kind in images.classes["decoders"].items() if name != "svhn"}
    with pytest.raises(ValueError, match=rf"decoders\['svhn'\] is None: .*{choices}"):
        images.load(decoders=decoders)


def test_networks_that_are_not_the_default(images):
    """Without ``custom_architectures`` they are taken for the default, and found out."""
    config = {**images.config, "custom_architectures": []}
    with pytest.raises(ValueError, match=r"encoders\['svhn'\] is 'Encoder_VAE_MLP', but its"):
        images.load(config=config, encoders=None)
    decoders = {"svhn": "Decoder_VAE_SVHN", "text": "CubTextDecoderMLP"}
    images.load(config=config, encoders={"svhn": "Encoder_VAE_SVHN"}, decoders=decoders)


@pytest.mark.parametrize(
    ("encoders", "message"),
    [
        ({"svhn": "EncoderResnetMMNIST"}, r"encoders\['svhn'\] is 'EncoderResnetMMNIST'"),
        ({"svhn": "Encoder_VAE_MLP"}, r"is 'Encoder_VAE_MLP', but .* 1[0-9] differences"),
        ({"sound": "Encoder_VAE_MLP"}, r"encoders has the unknown modalities \['sound'\]"),
    ],
)
def test_classes(images, encoders, message):
    with pytest.raises(ValueError, match=message):
        images.load(encoders=images.classes["encoders"] | encoders)


def test_images_of_another_size(images):
    """The kernels would fit, but the heads see exactly 4 x 4 pixels."""
    dims = {**images.config["input_dims"], "svhn": [3, 64, 64]}
    message = r"such as input_dims is \(3, 64, 64\), expected \(3, 32, 32\)"
    with pytest.raises(ValueError, match=message):
        images.load(config={**images.config, "input_dims": dims})


def test_files(tmp_path, small, monkeypatch):
    config = tmp_path / "model_config.json"
    with pytest.raises(FileNotFoundError, match=r"holds no model_config.json"):
        load_multivae(tmp_path)
    config.write_text(json.dumps(small.config))
    with pytest.raises(FileNotFoundError, match=r"holds neither model.pt nor model.npz"):
        load_multivae(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"model.pt needs PyTorch"):
        load_multivae(tmp_path)
