"""Settings of private latents and clusters: sizes, defaults, JSON, errors."""

import jax.numpy as jnp
import pytest
from flax import nnx
from helpers.small_model import make_data, make_model

import mmvae_jax as mm
from mmvae_jax.maths.latent_axes import LatentAxes

DIMS = {"image": (4,), "word": (3,)}


def config(**fields):
    return mm.MMVAEConfig(**{"input_dims": DIMS, "latent_dim": 3, **fields})


def test_sizes():
    """An integer for all, or sizes by modality, in the config's order; 0 for none."""
    assert config(modalities_specific_dim=2).axes == LatentAxes(3, (2, 2))
    unequal = config(modalities_specific_dim={"word": 5, "image": 0})
    assert unequal.axes == LatentAxes(3, (0, 5))
    assert unequal.axes.size == 8
    assert [unequal.network_dim(name) for name in DIMS] == [3, 8]
    for none in (0, {"image": 0, "word": 0}):
        assert config(modalities_specific_dim=none).axes == LatentAxes(3)


@pytest.mark.parametrize(
    ("fields", "learns"),
    [
        ({}, True),
        ({"modalities_specific_dim": 2}, False),
        ({"number_of_clusters": 2}, False),
        ({"modalities_specific_dim": 2, "learn_prior": True}, True),
        ({"number_of_clusters": 2, "learn_prior": True}, True),
        ({"learn_prior": False}, False),
    ],
)
def test_default_of_learn_prior(fields, learns):
    assert config(**fields).learn_prior is learns


def test_json_and_replace():
    given = config(
        modalities_specific_dim={"word": 5, "image": 0},
        number_of_clusters=4,
        learn_prior=True,
        learn_modality_prior=False,
        reconstruction_option="single_prior",
    )
    restored = mm.MMVAEConfig.from_json(given.to_json())
    assert restored == given
    assert hash(restored) == hash(given)
    assert given.replace(number_of_clusters=1).number_of_clusters == 1
    assert given.replace(K=3).axes == given.axes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modalities_specific_dim": -1}, "modalities_specific_dim is -1: give an integer"),
        ({"modalities_specific_dim": 1.5}, "modalities_specific_dim is 1.5: give an integer"),
        ({"modalities_specific_dim": True}, "modalities_specific_dim is True: give an integer"),
        ({"modalities_specific_dim": {"image": 2}}, r"modalities_specific_dim lacks \['word'\]"),
        (
            {"modalities_specific_dim": {"image": -2, "word": 1}},
            r"modalities_specific_dim\['image'\] is -2: give an integer",
        ),
        (
            {"modalities_specific_dim": {"image": 1, "word": 1, "sound": 1}},
            r"modalities_specific_dim has the unknown modalities \['sound'\]",
        ),
        ({"number_of_clusters": 0}, "number_of_clusters is 0: give an integer of at least 1"),
        (
            {"modalities_specific_dim": 1, "reconstruction_option": "prior"},
            "reconstruction_option is 'prior': choose one of .*'single_prior'",
        ),
        (
            {"reconstruction_option": "single_prior"},
            "reconstruction_option is 'single_prior', but there are no private latents",
        ),
        (
            {"learn_modality_prior": False},
            "learn_modality_prior is False, but there are no private latents",
        ),
    ],
)
def test_wrong_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        config(**fields)


def test_an_encoder_without_the_private_latent():
    """The message has the shape [n, d + p]."""
    model = make_model(modalities_specific_dim=2)
    model.encoders["a"] = make_model().encoders["a"]
    message = r"encoders\['a'\] returned .*\(8, 4\).*expected a pair .* of shape \(8, 6\)"
    with pytest.raises(ValueError, match=message):
        model.experts(make_data())


@pytest.mark.parametrize("learn", [True, False])
def test_learn_modality_prior(learn):
    model = make_model(modalities_specific_dim=2, learn_modality_prior=learn)
    assert all(isinstance(x, nnx.Param) == learn for x in model.private_log_var.values())
    assert not isinstance(model.prior_log_var, nnx.Param)
    assert jnp.shape(model.prior_log_var[...]) == (6,)
