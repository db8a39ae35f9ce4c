"""Samplers: densities and draws agree with a known aggregate posterior and with each other."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.monte_carlo import assert_within
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm

import mmvae_jax as mm
from mmvae_jax.samplers.flow import fixed_axes

BOTH = ["mixture", pytest.param("flow", marks=pytest.mark.slow)]
SCALE = np.array([0.5, 0.3])
#: Locations and weights of the aggregate posterior of ``make_data``.
LOC = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
WEIGHTS = np.array([0.25, 0.5, 0.25])


class Given(nnx.Module):
    """The posterior's location is the input, with zeros for private axes; its scale is fixed."""

    def __init__(self, num_axes, scale=SCALE):
        self.raw = jnp.zeros(num_axes).at[: len(scale)].set(2 * np.log(scale))

    def __call__(self, x):
        loc = jnp.zeros((len(x), len(self.raw))).at[:, : x.shape[1]].set(x)
        return loc, jnp.broadcast_to(self.raw, loc.shape)


def make_model(dim=2, scale=SCALE, **fields):
    names = ("a", "b")
    config = mm.MMVAEConfig(
        input_dims=dict.fromkeys(names, (dim,)),
        latent_dim=dim,
        prior_and_posterior_dist="normal",
        **fields,
    )
    encoders = {name: Given(config.network_dim(name), scale) for name in names}
    return mm.MMVAE(config, encoders, rngs=nnx.Rngs(0))


def make_data(num_examples=400):
    """Three groups: of both modalities, of the first one, and of none."""
    group = np.arange(num_examples) % 4
    a = LOC[np.where(group % 2, 1, 0)]
    b = np.where(group[:, None] % 2, np.nan, LOC[2])
    a, b = (np.concatenate([x, np.full((9, 2), np.nan)]).astype(np.float32) for x in (a, b))
    mask = {name: ~np.isnan(x[:, 0]) for name, x in (("a", a), ("b", b))}
    return mm.MultimodalArrays({"a": a, "b": b}, mask=mask)


def exact_log_prob(z):
    of_axes = norm.logpdf(z[:, None], LOC[None], SCALE[None, None])
    return logsumexp(of_axes.sum(-1) + np.log(WEIGHTS)[None], axis=1)


EXACT_MEAN = WEIGHTS @ LOC
EXACT_VARIANCE = WEIGHTS @ (LOC - EXACT_MEAN) ** 2 + SCALE**2


@pytest.fixture(scope="module")
def mixture():
    return mm.fit_gaussian_mixture(
        make_model(), make_data(), jax.random.key(0), num_components=3, num_draws=20
    )


@pytest.fixture(scope="module")
def flow():
    settings = {"num_layers": 4, "hidden": (32,), "num_steps": 400}
    return mm.fit_flow(make_model(), make_data(), jax.random.key(0), **settings)


@pytest.fixture
def sampler(request):
    return request.getfixturevalue(request.param)


def grid(low=-8.0, high=8.0, num=321):
    """Points of the plane, and the area of a cell."""
    line = np.linspace(low, high, num, dtype=np.float32)
    points = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    return jnp.asarray(points), (line[1] - line[0]) ** 2


def test_a_mixture_recovers_weights_and_components(mixture):
    fitted = mixture.shared
    order = np.argsort(fitted.loc[:, 0])
    num = 8000 * WEIGHTS[[0, 2, 1]]  # draws of each component
    error = SCALE / np.sqrt(num)[:, None]
    assert_within(np.asarray(fitted.loc)[order], error, LOC[[0, 2, 1]])
    weights = np.asarray(jax.nn.softmax(fitted.logits))[order]
    share = WEIGHTS[[0, 2, 1]]
    assert_within(weights, np.sqrt(share * (1 - share) / 8000), share)
    covariance = fitted.scale_tril @ fitted.scale_tril.mT
    variance = np.asarray(jnp.diagonal(covariance, axis1=1, axis2=2))[order]
    assert_within(variance, SCALE**2 * np.sqrt(2 / num)[:, None], SCALE**2)


@pytest.mark.parametrize(
    ("sampler", "most"),
    [("mixture", 0.005), pytest.param("flow", 0.1, marks=pytest.mark.slow)],
    indirect=["sampler"],
)
def test_the_density_is_that_of_the_aggregate_posterior(sampler, most):
    points, area = grid()
    log_p, exact = sampler.log_prob(points), exact_log_prob(points)
    np.testing.assert_allclose(np.exp(log_p).sum() * area, 1, atol=2e-3)
    divergence = np.sum(np.exp(exact) * (exact - log_p)) * area
    assert 0 <= divergence < most


@pytest.mark.parametrize("sampler", BOTH, indirect=True)
def test_draws_have_the_moments_of_the_density(sampler):
    n, (points, area) = 20_000, grid()
    z = np.asarray(sampler.sample(jax.random.key(1), n))
    p = np.exp(sampler.log_prob(points))[:, None] * area
    for power in (1, 2):
        values, exact = z**power, np.sum(p * points**power, axis=0)
        assert_within(values.mean(0), values.std(0) / n**0.5, exact)
    # The mixture is fitted to 8,000 draws, the flow to a stream of them.
    if sampler.shared.__class__.__name__ == "GaussianMixture":
        error = np.sqrt(EXACT_VARIANCE * (1 / n + 1 / 8000))
        assert_within(z.mean(0), error, EXACT_MEAN)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_flow_in_one_dimension_is_normalised(num_layers):
    model = make_model(dim=1, scale=SCALE[:1])
    x = np.repeat([[-1.0], [1.0]], 8, axis=0).astype(np.float32)
    settings = {"num_layers": num_layers, "hidden": (8,), "num_steps": 20}
    sampler = mm.fit_flow(model, mm.Batch({"a": x, "b": x}), jax.random.key(0), **settings)
    line = np.linspace(-30, 30, 60_001, dtype=np.float32)
    np.testing.assert_allclose(
        np.exp(sampler.log_prob(jnp.asarray(line[:, None]))).sum() * 1e-3, 1, atol=1e-3
    )


@pytest.mark.parametrize("dim", [2, 3, 5, 8])
def test_every_two_axes_are_on_different_sides_of_some_coupling(dim):
    masks = np.array(fixed_axes(dim, 2 * int(np.ceil(np.log2(dim)))))
    conditioned = masks[:, :, None] & ~masks[:, None, :]  # axis i fixed, axis j moved
    assert (conditioned.any(0) | np.eye(dim, dtype=bool)).all()


@pytest.mark.parametrize("option", ["joint_prior", "single_prior"])
def test_private_latents_come_from_the_distribution_of_the_config(option):
    sizes = {"a": 1, "b": 2}
    model = make_model(modalities_specific_dim=sizes, reconstruction_option=option)
    model.private_log_var["a"][...] = jnp.array([0.5])
    model.private_log_var["b"][...] = jnp.array([-1.0, 1.0])
    model.prior_log_var[...] = jnp.array([9.0, 9.0, 0.3, 0.7])
    sampler = mm.fit_gaussian_mixture(
        model, make_data(40), jax.random.key(0), num_components=1, num_draws=5
    )
    raw = {"joint_prior": [0.3, 0.3, 0.7], "single_prior": [0.5, -1.0, 1.0]}[option]
    scale, n = np.exp(np.array(raw) / 2), 10_000
    z = sampler.sample(jax.random.key(1), n)
    assert z.shape == (n, 5)
    assert_within(np.asarray(z[:, 2:].var(0)), scale**2 * (2 / n) ** 0.5, scale**2)
    shared = mm.LatentSampler(
        sampler.shared, jnp.zeros(0), sampler.axes._replace(private=()), sampler.family
    )
    expected = shared.log_prob(z[:9, :2]) + norm.logpdf(z[:9, 2:], 0, scale[None]).sum(-1)
    np.testing.assert_allclose(sampler.log_prob(z[:9]), expected, rtol=1e-5)
    assert sampler.log_prob(z[:8].reshape(2, 4, 5)).shape == (2, 4)


@pytest.mark.parametrize("sampler", BOTH, indirect=True)
def test_samplers_are_pytrees_and_draws_depend_on_the_key_only(sampler):
    z = sampler.sample(jax.random.key(3), 6)
    again = jax.jit(lambda sampler, key: sampler.sample(key, 6))(sampler, jax.random.key(3))
    np.testing.assert_allclose(again, z, rtol=1e-5)
    assert not np.isclose(sampler.sample(jax.random.key(4), 6), z).any()
    assert mm.decode(make_model(), z)["a"].shape == (6, 2)


def test_the_same_key_fits_the_same_sampler(mixture):
    again, other = (
        mm.fit_gaussian_mixture(
            make_model(), make_data(), jax.random.key(seed), num_components=3, num_draws=20
        )
        for seed in (0, 1)
    )
    for x, y in zip(jax.tree.leaves(mixture), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(x, y)
    assert not np.array_equal(other.shared.loc, mixture.shared.loc)


def test_wrong_arguments_are_refused(mixture, monkeypatch):
    model, data, key = make_model(), make_data(4), jax.random.PRNGKey(0)
    with pytest.raises(ValueError, match=r"num_components is 10, but there are 4 draws"):
        mm.fit_gaussian_mixture(model, data, key)
    nothing = data._replace(mask={name: np.zeros(13, bool) for name in ("a", "b")})
    with pytest.raises(ValueError, match=r"data has no example with a modality"):
        mm.fit_flow(model, nothing, key)
    for field, value in {"num_layers": 0, "hidden": (8, 0), "learning_rate": -1.0}.items():
        with pytest.raises(ValueError, match=rf"{field} is (0|-1\.0)"):
            mm.fit_flow(model, data, key, **{field: value})
    with pytest.raises(ValueError, match=r"z has shape \(4, 3\), expected \(..., 2\)"):
        mixture.log_prob(jnp.zeros((4, 3)))
    with pytest.raises(ValueError, match="n is 0"):
        mixture.sample(key, 0)
    model.encoders["a"].raw += jnp.inf
    with pytest.raises(ValueError, match="data has posteriors with NaN or infinity"):
        mm.fit_gaussian_mixture(model, data, key)
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    with pytest.raises(ImportError, match=r"needs scikit-learn: pip install 'mmvae_jax\[exper"):
        mm.fit_gaussian_mixture(model, data, key)
