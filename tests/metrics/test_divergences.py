"""Divergences of experts against DistraX, Monte Carlo and the distributions' own identities."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.monte_carlo import assert_within

from mmvae_jax.maths.distributions import FAMILIES
from mmvae_jax.maths.weights import Experts
from mmvae_jax.metrics import kl_between_experts

M, B, D = 3, 4, 2
ALL = jnp.ones((M, B), bool)


def make_experts(seed=0):
    rng = np.random.default_rng(seed)
    loc = rng.standard_normal((M, B, D)).astype(np.float32)
    return Experts(jnp.asarray(loc), jnp.asarray(np.exp(loc[::-1] / 2)))


@pytest.mark.slow
def test_normals_are_distrax_s():
    loc, scale = make_experts()
    found = kl_between_experts("normal", Experts(loc, scale), ALL)
    for m in range(M):
        for j in range(M):
            p, q = (distrax.MultivariateNormalDiag(loc[i], scale[i]) for i in (m, j))
            np.testing.assert_allclose(found[m, j], p.kl_divergence(q), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_monte_carlo_agrees(family):
    """E_{z ~ q_m} of log q_m(z) - log q_j(z)."""
    loc, scale = make_experts()
    num_draws = 20_000
    noise = FAMILIES[family].standard(jax.random.key(0), (num_draws, B, D), jnp.float32)
    log_prob = FAMILIES[family].log_prob
    found = kl_between_experts(family, Experts(loc, scale), ALL)
    for m in range(M):
        z = loc[None, m] + scale[None, m] * noise
        for j in set(range(M)) - {m}:
            ratio = log_prob(z, loc[None, m], scale[None, m])
            ratio -= log_prob(z, loc[None, j], scale[None, j])
            standard_error = ratio.std(0) / np.sqrt(num_draws)
            assert_within(np.asarray(found[m, j]), np.asarray(standard_error), ratio.mean(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_divergence_is_not_negative_and_zero_of_equals(family):
    experts = make_experts()
    kl = np.asarray(kl_between_experts(family, experts, ALL))
    assert (kl[~np.eye(M, dtype=bool)] > 0).all()
    np.testing.assert_allclose(kl[np.eye(M, dtype=bool)], 0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_shifts_and_scales_of_the_latent_space_change_nothing(family):
    loc, scale = make_experts()
    plain = kl_between_experts(family, Experts(loc, scale), ALL)
    moved = kl_between_experts(family, Experts(4 * loc + 1, 4 * scale), ALL)
    np.testing.assert_allclose(plain, moved, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_close_experts_do_not_cancel(family):
    """A shift by h << 1 costs h^2 / 2 in both families (Fisher information 1)."""
    h = 1e-3
    loc = jnp.array([0.0, h]).reshape(2, 1, 1)
    kl = kl_between_experts(family, Experts(loc, jnp.ones_like(loc)), jnp.ones((2, 1), bool))
    np.testing.assert_allclose(kl[0, 1, 0], h**2 / 2, rtol=1e-2)


def test_what_is_missing_is_undefined_and_unseen():
    loc, scale = make_experts()
    mask = ALL.at[1, 2].set(False)
    whole = np.asarray(kl_between_experts("normal", Experts(loc, scale), ALL))
    garbage = Experts(loc.at[1, 2].set(jnp.nan), scale.at[1, 2].set(jnp.inf))
    for experts in (Experts(loc, scale), garbage):
        found = np.asarray(kl_between_experts("normal", experts, mask))
        undefined = np.isnan(found)
        assert undefined[1, :, 2].all()
        assert undefined[:, 1, 2].all()
        assert undefined.sum() == 2 * M - 1
        np.testing.assert_array_equal(found[~undefined], whole[~undefined])


def test_a_family_without_a_closed_form_is_refused():
    with pytest.raises(ValueError, match="family is 'cauchy'"):
        kl_between_experts("cauchy", make_experts(), ALL)
