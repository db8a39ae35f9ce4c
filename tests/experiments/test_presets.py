"""Settings of the experiments: presets against published settings, and wrong values."""

import dataclasses
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers.official_files import write_cub
from PIL import Image

from experiments import (
    cub,
    digits,
    mnist_pairs,
    mnist_scenes,
    mnist_svhn,
    mnist_svhn_text,
    polymnist,
)

DIGITS = digits.DigitsConfig()
POLYMNIST = polymnist.PRESETS["multivae"][1]
MNIST_SVHN = mnist_svhn.PRESETS["paper"][1]

#: Settings of all experiments of Shi et al. (2019).
SHI = {
    "loss": "dreg_looser",
    "posterior": "laplace_with_softmax",
    "learn_prior": True,
    "beta": 1.0,
    "learning_rate": 1e-3,
    "amsgrad": True,
    "num_steps": None,
}
#: Settings of MMVAE+ and CMVAE in MultiVae's reproductions of Palumbo et al. (2023, 2024).
PALUMBO = {
    "loss": "iwae_looser",
    "K": 1,
    "beta": 2.5,
    "posterior": "laplace_with_softmax",
    "learn_prior": False,
    "latent_dim": 32,
    "modalities_specific_dim": 32,
    "learning_rate": 1e-3,
    "amsgrad": True,
    "scale": 0.75,
    "modalities": 5,
    "networks": "resnet",
    "separate_encoders": True,
}
#: Settings of MNIST-SVHN in Shi et al. (2019).
SHI_SVHN = SHI | {
    "K": 30,
    "latent_dim": 20,
    "batch_size": 128,
    "num_epochs": 30,
    "scale": 0.75,
    "hidden": 400,
    "pairings": 30,
}
PUBLISHED = {
    (mnist_svhn, "paper"): SHI_SVHN,
    (mnist_scenes, "paper"): SHI_SVHN,
    (mnist_svhn_text, "paper"): SHI
    | {"K": 30, "latent_dim": 20, "batch_size": 128, "num_epochs": 30, "scale": 0.75},
    (mnist_svhn_text, "mopoe"): {
        "loss": "elbo",
        "K": 1,
        "beta": 2.5,
        "posterior": "normal",
        "learn_prior": False,
        "latent_dim": 20,
        "batch_size": 256,
        "num_epochs": 200,
        "learning_rate": 1e-3,
        "amsgrad": False,
        "scale": 0.75,
        "pairings": 20,
    },
    (polymnist, "multivae"): {
        "loss": "dreg_looser",
        "K": 10,
        "beta": 1.0,
        "posterior": "laplace_with_softmax",
        "learn_prior": False,
        "latent_dim": 512,
        "batch_size": 256,
        "num_epochs": 100,
        "learning_rate": 1e-3,
        "amsgrad": False,
        "scale": 0.75,
        "modalities": 5,
        "networks": "conv",
    },
    (polymnist, "mmvae"): {
        "loss": "elbo",
        "K": 1,
        "beta": 1.0,
        "posterior": "laplace_with_softmax",
        "learn_prior": False,
        "latent_dim": 160,
        "batch_size": 128,
        "num_epochs": 150,
        "learning_rate": 1e-3,
        "amsgrad": True,
        "scale": 0.75,
        "modalities": 5,
        "networks": "resnet",
    },
    (polymnist, "mmvaeplus"): PALUMBO
    | {"number_of_clusters": 1, "batch_size": 32, "num_epochs": 150},
    (polymnist, "cmvae"): PALUMBO
    | {"number_of_clusters": 40, "batch_size": 128, "num_epochs": 250},
    (cub, "paper"): SHI
    | {"K": 50, "latent_dim": 64, "batch_size": 64, "num_epochs": 50, "scale": 0.01},
}
FACTORS = {
    (mnist_svhn, "paper"): {"mnist": 3.918, "svhn": 1.0},
    (mnist_scenes, "paper"): {"mnist": 3.918, "scene": 1.0},
    (mnist_svhn_text, "paper"): {"mnist": 3.918, "svhn": 1.0, "text": 384.0},
    (mnist_svhn_text, "mopoe"): {"mnist": 3.918, "svhn": 1.0, "text": 384.0},
    (polymnist, "multivae"): dict.fromkeys(("m0", "m1", "m2", "m3", "m4"), 1.0),
    **{
        (polymnist, preset): dict.fromkeys(("m0", "m1", "m2", "m3", "m4"), 1.0)
        for preset in ("mmvae", "mmvaeplus", "cmvae")
    },
    (cub, "paper"): {"image": 0.002604, "caption": 1.0},
}


@pytest.fixture(scope="module")
def birds(tmp_path_factory) -> Path:
    """Folder of a data set of captions; their words determine the shape of the model."""
    root = tmp_path_factory.mktemp("data")
    picture = Image.new("RGB", (8, 8))
    images = {"train": {"001.Bird/a.jpg": picture}, "test": {"002.Bird/b.jpg": picture}}
    write_cub(root / "cub", images, dict.fromkeys(images, ["a bird"] * 10))
    return root


@pytest.mark.parametrize(
    "place", PUBLISHED, ids=lambda place: f"{place[0].__name__.split('.')[-1]}-{place[1]}"
)
def test_presets_have_the_published_settings(place, birds):
    module, preset = place
    _, config = module.PRESETS[preset]
    expected = PUBLISHED[place]
    assert {field: getattr(config, field) for field in expected} == expected
    assert config.preset == preset
    model = dataclasses.replace(config, data_dir=birds).model_config()
    assert dict(model.likelihood_factors) == pytest.approx(FACTORS[place], rel=1e-3)
    assert (model.K, model.loss, model.beta) == (config.K, config.loss, config.beta)
    assert model.prior_and_posterior_dist == config.posterior
    assert (model.learn_prior, model.latent_dim) == (config.learn_prior, config.latent_dim)
    for name in model.modalities:
        kind, params = model.likelihood(name)
        is_text = name in ("text", "caption")
        assert (kind, dict(params)) == (
            ("categorical", {}) if is_text else ("laplace", {"scale": config.scale})
        )


@pytest.mark.parametrize(("preset", "dim"), [("mmvae", 160), ("mmvaeplus", 64), ("cmvae", 64)])
def test_networks_of_polymnist_have_shared_and_private_latents(preset, dim):
    config = dataclasses.replace(polymnist.PRESETS[preset][1], networks="mlp", modalities=2)

    @jax.eval_shape
    def shapes():
        encoders, decoders = config.make_networks(nnx.Rngs(0))
        x = jnp.zeros((3, 28, 28, 3))
        return encoders["m1"](x), decoders["m1"](jnp.zeros((3, dim)))

    (loc, log_var), x = shapes
    assert loc.shape == log_var.shape == (3, dim)
    assert x.shape == (3, 28, 28, 3)


def test_mmvaeplus_has_as_many_parameters_as_multivae():
    """Encoders of u and of w, and a decoder of [u, w]: the networks of MultiVae 1.0.3."""
    config = dataclasses.replace(polymnist.PRESETS["mmvaeplus"][1], modalities=2)
    networks = nnx.eval_shape(lambda: config.make_networks(nnx.Rngs(0)))
    encoders, decoders = (
        {m: sum(x.size for x in jax.tree.leaves(nnx.state(net))) for m, net in part.items()}
        for part in networks
    )
    assert encoders == dict.fromkeys(("m0", "m1"), 2_946_048)
    assert decoders == dict.fromkeys(("m0", "m1"), 1_485_251)


@pytest.mark.parametrize(
    ("experiment", "changes"),
    [
        (DIGITS, {"text": True}),
        (DIGITS, {"networks": "conv"}),
        (mnist_pairs.MNISTPairsConfig(), {}),
        (MNIST_SVHN, {}),
        (mnist_scenes.PRESETS["paper"][1], {}),
        (mnist_svhn_text.PRESETS["mopoe"][1], {}),
    ],
)
def test_every_experiment_has_models_with_private_latents(experiment, changes):
    """Networks fit the config; building an MMVAE+ and a CMVAE checks the rest."""
    sizes = {"latent_dim": 3, "modalities_specific_dim": 2, "number_of_clusters": 4}
    config = dataclasses.replace(experiment, **sizes, **changes)
    settings = config.model_config()
    assert (settings.axes.num_shared, set(settings.axes.private)) == (3, {2})
    assert settings.number_of_clusters == 4

    @jax.eval_shape
    def shapes():
        encoders, decoders = config.make_networks(nnx.Rngs(0))
        return {
            name: (encoders[name](jnp.zeros((1, *dim)))[0], decoders[name](jnp.zeros((1, 5))))
            for name, dim in settings.input_dims.items()
        }

    for name, (loc, x) in shapes.items():
        assert loc.shape == (1, 5)
        assert x.shape == (1, *settings.input_dims[name])


@pytest.mark.parametrize("module", [mnist_svhn, mnist_svhn_text, mnist_scenes, polymnist, cub])
def test_every_preset_has_its_name_and_a_description(module):
    for name, (description, config) in module.PRESETS.items():
        assert config.preset == name
        assert description.endswith(".")
        assert config.out == Path("runs") / config.name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (0, 0)}, r"seeds is \(0, 0\)"),
        ({"seeds": (1, -1)}, r"seeds is \(1, -1\)"),
        ({"num_epochs": 3}, "num_steps is 1500 and num_epochs is 3"),
        ({"num_steps": None}, "num_steps is None and num_epochs is None"),
        ({"num_steps": None, "num_epochs": 0}, "num_epochs is 0"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"save_every": 0}, "save_every is 0"),
        ({"num_likelihood": -1}, "num_likelihood is -1"),
        ({"num_gradients": 1}, "num_gradients is 1"),
        ({"missing": math.nan}, "missing is nan"),
        ({"learning_rate": math.inf}, "learning_rate is inf"),
        ({"seed": -1}, "seed is -1"),
        ({"posterior": "cauchy"}, "prior_and_posterior_dist is 'cauchy'"),
        ({"aggregation": "sum"}, "aggregation is 'sum'"),
        ({"aggregation": "mopoe"}, "aggregation is 'mopoe', but prior_and_posterior_dist is"),
        ({"modalities_specific_dim": -1}, "modalities_specific_dim is -1"),
        ({"number_of_clusters": 0}, "number_of_clusters is 0"),
        ({"loss": "dregs"}, "loss is 'dregs'"),
        ({"backward": "none"}, "'none'"),
        ({"fsdp": True}, "fsdp is True"),
        ({"mesh": (0, 1)}, r"mesh is \(0, 1\)"),
        ({"num_processes": 2}, "coordinator is None"),
        ({"process_id": 1}, "process_id is 1"),
    ],
)
def test_wrong_values_of_every_experiment_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(DIGITS, **changes)


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        (POLYMNIST, "modalities", 6),
        (POLYMNIST, "networks", "vit"),
        (POLYMNIST, "separate_encoders", True),
        (MNIST_SVHN, "pairings", 0),
        (MNIST_SVHN, "scale", 0.0),
        (mnist_pairs.MNISTPairsConfig(), "hidden", 0),
        (cub.PRESETS["paper"][1], "image_factor", 0.0),
        (cub.PRESETS["paper"][1], "samplers", True),
        (cub.PRESETS["paper"][1], "weighting", "importance"),
    ],
)
def test_wrong_values_of_one_experiment_are_named(config, field, value):
    with pytest.raises(ValueError, match=f"{field} is {value!r}"):
        dataclasses.replace(config, **{field: value})
