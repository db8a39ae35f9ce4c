"""Checked numbers are plain Python numbers, whatever kind of scalar they came as."""

import inspect
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmvae_jax as mm
from mmvae_jax.checks import (
    check_count,
    check_flag,
    check_not_negative,
    check_positive,
    check_share,
)

DIMS = {"t": (12,), "y": (3,)}


@pytest.mark.parametrize("scalar", [np.int32, np.uint8, np.int64, np.array, jnp.asarray])
def test_counts_are_plain_integers(scalar):
    assert type(check_count("K", scalar(6))) is int
    assert check_count("K", scalar(6)) == 6


@pytest.mark.parametrize("scalar", [np.float16, np.float64, np.longdouble, np.array, jnp.asarray])
@pytest.mark.parametrize("check", [check_positive, check_not_negative, check_share])
def test_numbers_are_plain_floats(scalar, check):
    assert type(check("beta", scalar(0.5))) is float
    assert check("beta", scalar(0.5)) == 0.5


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (check_count, np.True_),
        (check_count, np.float64(4)),
        (check_count, np.array([4])),
        (check_count, np.array("4")),
        (check_positive, np.float32("nan")),
        (check_positive, np.True_),
        (check_not_negative, np.float32("inf")),
        (check_share, np.float32(1)),
        (check_flag, np.int64(1)),
    ],
)
def test_refused(check, value):
    with pytest.raises(ValueError, match=r"^field is .*: give "):
        check("field", value)


def test_traced_numbers_are_refused_by_name():
    with pytest.raises(ValueError, match=r"K is .*: give an integer"):
        jax.eval_shape(lambda K: check_count("K", K), 4)


def test_a_config_of_numpy_scalars_is_the_same_config():
    plain = mm.MMVAEConfig(
        input_dims=DIMS,
        n_modalities=2,
        latent_dim=4,
        K=6,
        beta=0.5,
        min_scale=0.25,
        learn_prior=False,
        experts_per_step=1,
        uses_likelihood_rescaling=True,
        rescale_factors={"t": 1, "y": 0.5},
        decoder_dist_params={"t": {"scale": 0.25}, "y": {"scale": mm.Learned(0.5, 0.25, True)}},
    )
    learned: Any = (np.float32(0.5), np.float64(0.25), np.True_)
    given: Any = dict(
        input_dims={"t": np.array([12]), "y": (np.int64(3),)},
        n_modalities=np.int64(2),
        latent_dim=np.int32(4),
        K=np.uint8(6),
        beta=np.float32(0.5),
        min_scale=jnp.float32(0.25),
        learn_prior=np.False_,
        experts_per_step=np.array(1),
        uses_likelihood_rescaling=np.True_,
        rescale_factors={"t": np.int64(1), "y": np.float16(0.5)},
        decoder_dist_params={
            "t": {"scale": np.float32(0.25)},
            "y": {"scale": mm.Learned(*learned)},
        },
    )
    config = mm.MMVAEConfig(**given)
    assert config == plain
    assert hash(config) == hash(plain)
    assert config.to_json() == plain.to_json()


def test_settings_of_numpy_scalars(names_of_package):
    count: Any = np.int64(3)
    data = names_of_package["arrays"]
    share: Any = np.float32(0.5)
    settings = [
        mm.Evaluation(data=data, every=count, batch_size=count, patience=count),
        mm.Checkpointing(directory="run", every=count, keep=count),
        mm.ImportanceWeighting(num_particles=count, prior_share=share, chunk=count),
    ]
    for setting in settings:
        numbers = [x for x in vars(setting).values() if isinstance(x, int | float)]
        assert len(numbers) >= 2
        assert all(type(x) in (int, float, bool) for x in numbers)


def test_arguments_of_functions(names_of_package, tmp_path):
    """Without the tests' checks of annotations, which say int and float."""
    model, batch, data = (names_of_package[name] for name in ("model", "batch", "arrays"))
    two: Any = np.int64(2)
    key = partial(jax.random.key, 0)
    assert inspect.unwrap(mm.encode)(model, batch, key(), N=two).shape == (5, 2, 2)
    assert inspect.unwrap(mm.generate)(model, key(), two)["sound"].shape == (2, 4)
    nll = inspect.unwrap(mm.compute_joint_nll)(model, batch, key(), K=np.int64(50))
    np.testing.assert_array_equal(nll, mm.compute_joint_nll(model, batch, key(), K=50))
    steps = inspect.unwrap(mm.data.batches)(data, two, seed=np.int64(0), num_steps=two)
    assert [len(step.data["sound"]) for step in steps] == [2, 2]
    state = mm.create_train_state(model, names_of_package["tx"], key=key())
    result = inspect.unwrap(mm.fit)(
        state,
        data,
        num_steps=two,
        batch_size=np.int64(5),
        seed=np.int64(0),
        log_every=np.int64(1),
        progress=False,
        checkpointing=mm.Checkpointing(directory=tmp_path / "run"),
    )
    assert int(result.state.step) == 2
