"""Estimators with private latents and clusters: quadrature, and each other's means."""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.monte_carlo import NUM_SIGMA, mean_and_error, optimised_jit
from helpers.private_toy import PATTERNS, exact_gradient, sampled_gradients, toy_batch, toy_model
from helpers.small_model import double_model, every_mask, make_data, make_model

import mmvae_jax as mm
from mmvae_jax.maths import gradients

pytestmark = [
    pytest.mark.usefixtures("x64"),
    # The scale of a private latent of one axis is constant under laplace_with_softmax.
    pytest.mark.filterwarnings("ignore:modalities_specific_dim is 1"),
]

NUM_KEYS = 600
COMPLETE = (("a", "b"),)
SINGLE = (("a",), ("b",))
gradients_of = optimised_jit(sampled_gradients)


@cache
def exact(bound, num_clusters, K, patterns):
    """The exact gradient does not depend on the estimator."""
    model = toy_model(f"iwae{bound}", num_clusters, K)
    return jax.device_get(optimised_jit(exact_gradient, static_argnums=1)(model, patterns))


def by_name(tree):
    """Arrays by path, such as ``encoders/a/loc``, but for private latents of size 0."""
    flat, _ = jax.tree.flatten_with_path(tree)
    named = {"/".join(str(k.key) for k in path if hasattr(k, "key")): x for path, x in flat}
    return {name: x for name, x in named.items() if x.size}


def deviations(loss, num_clusters=1, K=2, patterns=PATTERNS):
    """The error of the mean gradient in standard errors, by parameter."""
    bound = "_looser" if loss.endswith("_looser") else ""
    expected = by_name(exact(bound, num_clusters, K, patterns))
    keys = jax.random.split(jax.random.key(0), NUM_KEYS)
    found = gradients_of(toy_model(loss, num_clusters, K), toy_batch(8, patterns), keys)
    found = {name: mean_and_error(np.asarray(x)) for name, x in by_name(found).items()}
    assert found.keys() == expected.keys()
    return {
        name: np.abs(mean - expected[name]) / np.maximum(error, 1e-9)
        for name, (mean, error) in found.items()
    }


def assert_unbiased(found):
    assert max(x.max() for x in found.values()) < NUM_SIGMA, found


@pytest.mark.parametrize(
    ("loss", "num_clusters", "K"),
    [
        ("adaptive_dreg_looser", 2, 2),
        pytest.param("adaptive_dreg_looser", 1, 2, marks=pytest.mark.slow),
        pytest.param("adaptive_dreg", 2, 1, marks=pytest.mark.slow),
        pytest.param("mixture_dreg_looser", 1, 2, marks=pytest.mark.slow),
        pytest.param("mixture_dreg", 2, 1, marks=pytest.mark.slow),
        pytest.param("iwae_looser", 2, 2, marks=pytest.mark.slow),
        pytest.param("iwae", 1, 1, marks=pytest.mark.slow),
    ],
)
def test_unbiased_against_quadrature(loss, num_clusters, K):
    """For all parameters, of both modalities, of each by itself, and with unequal experts."""
    assert_unbiased(deviations(loss, num_clusters, K))


@pytest.mark.slow
def test_dreg_is_biased_for_the_shared_latent_only():
    """A private latent has a single expert, where DReG is exact."""
    found = deviations("dreg_looser", 1, 2, COMPLETE)
    for name, x in found.items():
        assert x[1:].max() < NUM_SIGMA if name.startswith("encoders") else x.max() < NUM_SIGMA
    assert max(x[0] for name, x in found.items() if name.startswith("encoders")) > 8, found


@pytest.mark.slow
def test_stl_is_exact_with_one_particle_and_biased_with_two():
    assert_unbiased(deviations("stl_looser", 2, 1))
    found = deviations("stl_looser", 1, 2, COMPLETE)
    for axis in (0, 1):
        assert max(x[axis] for name, x in found.items() if name.startswith("encoders")) > 8, found


@pytest.mark.slow
def test_dreg_is_exact_where_every_example_has_one_expert():
    assert_unbiased(deviations("dreg_looser", 2, 2, SINGLE))


# Private latents of unequal sizes, one of them 0.

PRIVATE = {"modalities_specific_dim": {"a": 2, "b": 0, "c": 1}, "number_of_clusters": 3}


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["adaptive_dreg_looser", "adaptive_dreg", "mixture_dreg"])
def test_estimators_agree_in_the_mean(loss):
    """With reparam, under Laplace posteriors and every pattern of masks; with less noise."""
    twice = jax.tree.map(lambda x: np.concatenate([x] * 3), (make_data(), every_mask()))
    batch = mm.Batch(*twice)
    bound = "_looser" if loss.endswith("_looser") else ""

    def moments(loss, seed):
        model = double_model(make_model(loss=loss, learn_prior=True, **PRIVATE))
        keys = jax.random.split(jax.random.key(seed), 800)
        grads = gradients_of(model, batch, keys)
        return {k: mean_and_error(np.asarray(x)) for k, x in by_name(grads).items()}

    ours, plain = moments(loss, 0), moments(f"iwae{bound}", 1)
    scores = [
        (mean - plain[name][0]) / np.maximum(np.hypot(error, plain[name][1]), 1e-12)
        for name, (mean, error) in ours.items()
    ]
    scores = np.concatenate([x.ravel() for x in scores])
    assert np.abs(scores).max() < 5  # the largest of 800
    assert (scores**2).mean() < 1.3
    noise, plain_noise = (
        np.concatenate([e.ravel() for name, (_, e) in x.items() if name.startswith("encoders")])
        for x in (ours, plain)
    )
    assert (noise**2).sum() < (plain_noise**2).sum()


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param("stl", marks=pytest.mark.slow),
        pytest.param("dreg_looser", marks=pytest.mark.slow),
        pytest.param("mixture_dreg", marks=pytest.mark.slow),
        pytest.param("adaptive_dreg_looser", marks=pytest.mark.slow),
    ],
)
def test_all_but_the_encoders_get_the_true_gradient(loss):
    """Decoders, prior, clusters and r_m(w): plain autodiff of the bound, draw by draw."""
    bound = "_looser" if loss.endswith("_looser") else ""

    def grads(loss):
        model = double_model(make_model(loss=loss, learn_prior=True, **PRIVATE))
        gradient = jax.jit(mm.value_and_grad)
        _, grads = gradient(model, mm.Batch(make_data(), every_mask()), jax.random.key(2))
        return by_name(grads)

    ours, plain = grads(loss), grads(f"iwae{bound}")
    for name, x in ours.items():
        if not name.startswith("encoders"):
            np.testing.assert_allclose(x, plain[name], rtol=1e-9, atol=1e-12, err_msg=name)
            # The softmax over one axis of w_c is constant.
            assert name == "private_log_var/c" or jnp.abs(x).max() > 1e-5, name


@pytest.mark.slow
def test_the_whole_step_of_adaptive_dreg_is_mixture_dreg(monkeypatch):
    """With a coefficient of 1 they are one estimator, draw by draw, on u and on w."""
    monkeypatch.setattr(gradients, "coefficients_from_others", lambda g, *_: jnp.ones_like(g))
    batch = mm.Batch(make_data(), every_mask())
    ours, expected = (
        jax.jit(mm.value_and_grad)(
            double_model(make_model(loss=loss, **PRIVATE)), batch, jax.random.key(3)
        )[1]
        for loss in ("adaptive_dreg_looser", "mixture_dreg_looser")
    )
    chex.assert_trees_all_close(ours, expected, rtol=1e-9, atol=1e-11)
