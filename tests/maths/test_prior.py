"""The prior: densities by scipy and quadrature, moments of draws, the joint softmax of MMVAE+."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.monte_carlo import NUM_SIGMA
from helpers.small_model import make_model
from scipy.special import logsumexp, softmax
from scipy.stats import laplace, norm

import mmvae_jax as mm
from mmvae_jax.maths.distributions import FAMILIES
from mmvae_jax.maths.latent_axes import LatentAxes
from mmvae_jax.maths.prior import (
    Clusters,
    Prior,
    cluster_log_probs,
    draw_clusters,
    draw_prior,
    prior_components,
    prior_log_prob,
)

pytestmark = [
    pytest.mark.usefixtures("x64"),
    # The scale of a private latent of one axis is constant under laplace_with_softmax.
    pytest.mark.filterwarnings("ignore:modalities_specific_dim is 1"),
]

DENSITIES = {"normal": norm, "laplace_with_softmax": laplace, "normal_with_softplus": norm}
AXES = LatentAxes(2, (2, 0, 1))
LOGITS = np.array([0.3, -0.5, 1.0])
LOC = np.array([[-1.0, 0.4], [0.5, 2.0], [1.5, -0.7]])
RAW = np.array([[0.2, -0.6], [-0.3, 0.5], [0.0, 0.1]])
PRIVATE_RAW = np.array([0.4, -0.9])


def clustered(num_shared=2):
    """Three clusters of p(u), and raw scales of w."""
    parts = (LOC[:, :num_shared], RAW[:, :num_shared])
    return Prior(jnp.asarray(PRIVATE_RAW), Clusters(*map(jnp.asarray, (LOGITS, *parts))))


def scale_of(family, raw):
    """Scales by numpy."""
    if family == "normal":
        return np.exp(raw / 2)
    if family == "normal_with_softplus":
        return np.logaddexp(0, raw) + 1e-6
    return softmax(raw, axis=-1) * raw.shape[-1] + 1e-6


def exact_clusters(family, u):
    """log pi_c + log p(u|c), ``[c n]``, by scipy."""
    scale = scale_of(family, RAW[:, : u.shape[-1]])[:, None]
    log_p = DENSITIES[family].logpdf(u[None], LOC[:, None, : u.shape[-1]], scale).sum(-1)
    return np.log(softmax(LOGITS))[:, None] + log_p


def exact_private(family, w):
    """log p(w_j) of every axis: each modality takes the first axes of one distribution."""
    scale = scale_of(family, PRIVATE_RAW)[[0, 1, 0]]
    return DENSITIES[family].logpdf(w, 0, scale)


@pytest.mark.parametrize("family", FAMILIES)
def test_density_of_clusters_and_private_latents(family):
    """All of z, and the own private latent only; q(c|u) sums to 1."""
    z = 2 * np.random.default_rng(0).normal(size=(7, AXES.size))
    prior, u, w = clustered(), z[:, :2], z[:, 2:]
    log_u, log_w = logsumexp(exact_clusters(family, u), axis=0), exact_private(family, w)
    log_p = prior_log_prob(FAMILIES[family], AXES, prior, jnp.asarray(z))
    np.testing.assert_allclose(log_p, log_u + log_w.sum(-1), rtol=1e-10)
    for source, own in enumerate((slice(0, 2), slice(0, 0), slice(2, 3))):
        log_p = prior_log_prob(
            FAMILIES[family], AXES, prior, jnp.asarray(z), jnp.full(len(z), source)
        )
        np.testing.assert_allclose(log_p, log_u + log_w[:, own].sum(-1), rtol=1e-10)
    each = cluster_log_probs(FAMILIES[family], prior.clusters, jnp.asarray(u))
    np.testing.assert_allclose(each, exact_clusters(family, u), rtol=1e-10)
    np.testing.assert_allclose(jax.nn.softmax(each, axis=0).sum(0), 1, rtol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_density_integrates_to_one(family):
    u = np.arange(-40, 40, 1e-3) + 5e-4
    log_p = prior_log_prob(FAMILIES[family], LatentAxes(1), clustered(1), jnp.asarray(u)[:, None])
    np.testing.assert_allclose(np.exp(log_p).sum() * 1e-3, 1, rtol=1e-6)


def test_the_scales_of_one_prior_are_a_joint_softmax():
    """MMVAE+ without clusters: the softmax runs over u and the largest private latent."""
    raw = np.array([0.3, -0.2, 0.7, -0.5])
    axes, family = LatentAxes(2, (1, 2)), FAMILIES["laplace_with_softmax"]
    loc, scale = prior_components(family, axes, Prior(jnp.asarray(raw)))
    joint = softmax(raw) * 4 + 1e-6
    np.testing.assert_allclose(scale[0], joint[[0, 1, 2, 2, 3]], rtol=1e-9)
    np.testing.assert_array_equal(loc, 0)
    z = np.random.default_rng(1).normal(size=(5, 5))
    expected = laplace.logpdf(z, 0, joint[[0, 1, 2, 2, 3]]).sum(-1)
    found = prior_log_prob(family, axes, Prior(jnp.asarray(raw)), jnp.asarray(z))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("family", ["normal", "laplace_with_softmax"])
def test_draws_have_the_moments_of_the_mixture(family):
    num, prior = 100_000, clustered()
    components = prior_components(FAMILIES[family], AXES, prior)
    draws = draw_prior(FAMILIES[family], components, prior.clusters, jax.random.key(0), (num,))
    draws, pi = np.asarray(draws), softmax(LOGITS)
    variance = (2 if family.startswith("laplace") else 1) * np.concatenate(
        [scale_of(family, RAW), np.broadcast_to(scale_of(family, PRIVATE_RAW)[[0, 1, 0]], (3, 3))],
        axis=1,
    ) ** 2
    loc = np.concatenate([LOC, np.zeros((3, 3))], axis=1)
    mean, second = pi @ loc, np.einsum("c,ci,cj->ij", pi, loc, loc) + np.diag(pi @ variance)
    assert_mean(draws, mean)
    assert_mean(draws[:, :, None] * draws[:, None], second)


def assert_mean(draws, expected):
    error = draws.std(0) / np.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(0) - expected) < NUM_SIGMA * error)


def test_clusters_of_particles_have_their_weights():
    """The cluster of a particle depends on its number only."""
    number, prior = jnp.arange(40_000), clustered()
    drawn = draw_clusters(prior, jax.random.key(1), number)
    pi = softmax(LOGITS)
    share = np.bincount(drawn) / len(number)
    assert np.all(np.abs(share - pi) < NUM_SIGMA * np.sqrt(pi * (1 - pi) / len(number)))
    again = draw_clusters(prior, jax.random.key(1), number[5:9].reshape(2, 2))
    np.testing.assert_array_equal(again.ravel(), drawn[5:9])
    assert draw_clusters(Prior(jnp.zeros(2)), jax.random.key(1), number) == 0


@pytest.mark.parametrize("learn_prior", [None, True])
def test_trained_parameters(learn_prior):
    """Scales of the prior and its clusters are trained only where asked for."""
    model = make_model(
        number_of_clusters=3,
        modalities_specific_dim={"a": 2, "b": 0, "c": 1},
        learn_prior=learn_prior,
    )
    trained = {
        name: isinstance(x, nnx.Param)
        for name, x in {
            "logits": model.clusters["logits"],
            "loc": model.clusters["loc"],
            "log_var": model.clusters["log_var"],
            "prior": model.prior_log_var,
            "r": model.private_log_var["a"],
        }.items()
    }
    scales = bool(learn_prior)
    assert trained == {"logits": True, "loc": True, "log_var": scales, "prior": scales, "r": True}
    assert model.prior_log_var[...].shape == (2,)
    assert [model.private_log_var[m][...].shape for m in ("a", "c")] == [(2,), (1,)]
    loc, scale = model.pz_params
    assert loc.shape == scale.shape == (3, 7)
    assert mm.MMVAEConfig(input_dims={"x": (2,)}).learn_prior is True
