"""MMVAEConfig: defaults, checks, immutability, JSON."""

import dataclasses
import pickle

import jax.numpy as jnp
import pytest

import mmvae_jax as mm
from mmvae_jax.likelihood_params import LIKELIHOOD_PARAMS
from mmvae_jax.maths.bounds import BOUNDS
from mmvae_jax.maths.estimators import ESTIMATORS
from mmvae_jax.maths.likelihoods import LIKELIHOODS
from mmvae_jax.maths.losses import LOSSES

DIMS = {"image": (28, 28, 1), "word": (8, 71)}


def test_defaults_are_multivaes_but_for_the_loss():
    config = mm.MMVAEConfig(input_dims=DIMS)
    assert (config.n_modalities, config.latent_dim, config.K, config.beta) == (2, 10, 10, 1.0)
    assert config.prior_and_posterior_dist == "laplace_with_softmax"
    assert config.loss == "adaptive_dreg_looser"
    assert config.learn_prior is True
    assert config.uses_likelihood_rescaling is False
    assert config.decoders_dist == {"image": "normal", "word": "normal"}
    assert config.decoder_dist_params == {"image": {"scale": 1.0}, "word": {"scale": 1.0}}


def test_every_choice_is_implemented():
    assert set(LIKELIHOOD_PARAMS) == set(LIKELIHOODS)
    assert {name.bound for name in LOSSES.values()} == set(BOUNDS)
    assert {name.estimator for name in LOSSES.values()} == set(ESTIMATORS)
    config = mm.MMVAEConfig(
        input_dims=dict.fromkeys(LIKELIHOODS, (3,)),
        decoders_dist={name: name for name in LIKELIHOODS},
    )
    assert set(config.decoders_dist.values()) == set(LIKELIHOODS)


def test_frozen_and_hashable():
    config = mm.MMVAEConfig(input_dims=DIMS, decoder_dist_params={"image": {"scale": 0.5}})
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.K = 3
    with pytest.raises(TypeError):
        config.input_dims["image"] = (1,)
    same = mm.MMVAEConfig(input_dims=DIMS, decoder_dist_params={"image": {"scale": 0.5}})
    assert hash(config) == hash(same)
    assert config == same
    assert config != config.replace(K=11)
    assert pickle.loads(pickle.dumps(config)) == config


def test_order_of_modalities_counts():
    """The order of input_dims is the order of the experts, so it is part of the config."""
    turned = dict(reversed(DIMS.items()))
    assert mm.MMVAEConfig(input_dims=DIMS) != mm.MMVAEConfig(input_dims=turned)
    assert mm.MMVAEConfig(input_dims=turned).modalities == ("word", "image")


def test_later_changes_of_the_dicts_do_not_reach_the_config():
    dims, params = dict(DIMS), {"image": {"scale": 0.5}}
    config = mm.MMVAEConfig(input_dims=dims, decoder_dist_params=params)
    dims["sound"] = (5,)
    params["image"]["scale"] = 7.0
    assert config.modalities == ("image", "word")
    assert config.decoder_dist_params["image"] == {"scale": 0.5}


def test_json_round_trip():
    config = mm.MMVAEConfig(
        input_dims={"word": (8, 71), "image": (28, 28, 1)},
        n_modalities=2,
        decoders_dist={"word": "categorical", "image": "laplace"},
        decoder_dist_params={"image": {"scale": 0.75}},
        uses_likelihood_rescaling=True,
        rescale_factors={"image": 1, "word": 2.5},
        prior_and_posterior_dist="normal",
        learn_prior=False,
        latent_dim=3,
        K=7,
        beta=0.5,
        loss="mixture_dreg",
        min_scale=1e-6,
    )
    restored = mm.MMVAEConfig.from_json(config.to_json())
    assert restored == config
    assert restored.modalities == ("word", "image")
    assert hash(restored) == hash(config)


def test_json_refuses_functions_and_unknown_fields():
    config = mm.MMVAEConfig(input_dims=DIMS, decoders_dist={"image": lambda decoded, x: 0.0})
    with pytest.raises(ValueError, match=r"decoders_dist\['image'\].*function"):
        config.to_json()
    with pytest.raises(ValueError, match=r"unknown config fields \['kl_weight'\]"):
        mm.MMVAEConfig.from_dict({"input_dims": DIMS, "kl_weight": 1.0})
    with pytest.raises(ValueError, match="input_dims is missing"):
        mm.MMVAEConfig.from_json("{}")
    with pytest.raises(ValueError, match="must be an object"):
        mm.MMVAEConfig.from_json("[]")


def test_rescale_factors():
    """max dim / dim, 1 for a single modality, or what the user gives."""
    rescaled = mm.MMVAEConfig(input_dims=DIMS, uses_likelihood_rescaling=True)
    assert rescaled.likelihood_factors == {"image": 1.0, "word": 784 / 568}
    assert mm.MMVAEConfig(input_dims=DIMS).likelihood_factors == {"image": 1.0, "word": 1.0}
    single = mm.MMVAEConfig(input_dims={"x": (5,)}, uses_likelihood_rescaling=True)
    assert single.likelihood_factors == {"x": 1.0}
    given = rescaled.replace(rescale_factors={"word": 3, "image": 2.0})
    assert list(given.likelihood_factors.items()) == [("image", 2.0), ("word", 3.0)]


def test_a_posterior_that_cannot_choose_its_scale_warns():
    """The softmax over one axis is 1."""
    with pytest.warns(UserWarning, match="latent_dim is 1 .*'normal' or 'normal_with_softplus'"):
        config = mm.MMVAEConfig(input_dims=DIMS, latent_dim=1)
    with pytest.warns(UserWarning, match="modalities_specific_dim is 1 under"):
        mm.MMVAEConfig(input_dims=DIMS, modalities_specific_dim=1)
    raw = jnp.array([[-3.0], [5.0]])
    assert config.family.to_scale(raw).ravel().tolist() == pytest.approx([1, 1], abs=1e-5)
    for family in ("normal", "normal_with_softplus"):
        config = mm.MMVAEConfig(input_dims=DIMS, latent_dim=1, prior_and_posterior_dist=family)
        assert config.family.to_scale(raw)[0] < config.family.to_scale(raw)[1] / 2


def test_configs_without_newer_fields_take_the_defaults():
    fields = mm.MMVAEConfig(input_dims=DIMS).to_dict()
    del fields["min_scale"]
    assert mm.MMVAEConfig.from_dict(fields) == mm.MMVAEConfig(input_dims=DIMS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input_dims": {}}, "input_dims is {}: give a dict"),
        ({"input_dims": [3, 4]}, "input_dims is .*give a dict"),
        ({"input_dims": {"a": ()}}, r"input_dims\['a'\] is \(\): give a tuple"),
        ({"input_dims": {"a": (3, 0)}}, r"input_dims\['a'\] is 0: give an integer"),
        ({"input_dims": {"a/b": (3,)}}, "modality name 'a/b'"),
        ({"input_dims": {"all": (3,)}}, "modality name 'all'"),
        ({"n_modalities": 3}, r"n_modalities is 3, but input_dims has 2"),
        ({"latent_dim": 0}, "latent_dim is 0: give an integer of at least 1"),
        ({"latent_dim": 2.0}, "latent_dim is 2.0: give an integer"),
        ({"K": -1}, "K is -1: give an integer of at least 1"),
        ({"K": True}, "K is True: give an integer"),
        ({"beta": -0.1}, "beta is -0.1: give a finite number of at least 0"),
        ({"beta": float("nan")}, "beta is nan: give a finite number of at least 0"),
        ({"min_scale": 0}, "min_scale is 0: give a finite number above 0"),
        (
            {"min_scale": 0.1, "prior_and_posterior_dist": "normal"},
            "min_scale is 0.1, but the scales of 'normal' have no floor",
        ),
        ({"beta": "1"}, "beta is '1': give a finite number"),
        ({"learn_prior": 1}, "learn_prior is 1: give True or False"),
        ({"loss": "dreg_tight"}, "loss is 'dreg_tight': choose one of .*'dreg_looser'"),
        (
            {"prior_and_posterior_dist": "laplace"},
            "'laplace': choose one of .*laplace_with_softmax",
        ),
        (
            {"decoders_dist": {"sound": "normal"}},
            r"decoders_dist has the unknown modalities \['sound'\]",
        ),
        ({"decoders_dist": {"word": "gauss"}}, r"decoders_dist\['word'\] is 'gauss': choose one"),
        ({"decoders_dist": "normal"}, "decoders_dist is 'normal': give a dict"),
        (
            {"decoder_dist_params": {"sound": {}}},
            r"decoder_dist_params has the unknown modalities \['sound'\]",
        ),
        ({"decoder_dist_params": {"word": {"scale": 0}}}, r"\['word'\]\['scale'\] is 0: give a"),
        ({"decoder_dist_params": {"word": {"std": 1.0}}}, r"sets 'std'.*it takes \['scale'\]"),
        ({"decoder_dist_params": {"word": 0.5}}, r"decoder_dist_params\['word'\] is 0.5: give a d"),
        ({"rescale_factors": {"word": 1.0}}, "uses_likelihood_rescaling is False: set it to True"),
        (
            {"rescale_factors": {"word": 1.0}, "uses_likelihood_rescaling": True},
            r"rescale_factors lacks \['image'\]",
        ),
        (
            {"rescale_factors": {"word": 1.0, "image": -1}, "uses_likelihood_rescaling": True},
            r"rescale_factors\['image'\] is -1: give a finite number above 0",
        ),
    ],
)
def test_wrong_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        mm.MMVAEConfig(**{"input_dims": DIMS, **fields})
