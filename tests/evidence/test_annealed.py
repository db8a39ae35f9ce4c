"""Annealed importance sampling: closed forms, quadrature, unbiasedness, two-sided bounds."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.linear_gaussian import hide, linear_gaussian, make_problem
from helpers.monte_carlo import assert_within, mean_and_error, optimised_jit
from helpers.small_model import SmallDecoder, SmallEncoder, every_mask
from helpers.small_model import make_model as make_small_model
from scipy.special import logsumexp
from scipy.stats import laplace

import mmvae_jax as mm
from mmvae_jax.maths.distributions import FAMILIES

pytestmark = pytest.mark.usefixtures("x64")

FEW = {"num_chains": 4, "num_temperatures": 6, "num_leapfrog": 2, "step_size": 0.8}
# Sums of numbers of size 10 in 64 bits, in another order.
ROUNDING = {"rtol": 1e-9, "atol": 1e-9}


def exact_nll(case, data, mask):
    rows = [{m: x[b : b + 1] for m, x in data.items()} for b in range(len(mask["a"]))]
    seen = [[m for m in case.names if mask[m][b]] for b in range(len(rows))]
    return -np.array([case.log_prob(row, m)[0] for row, m in zip(rows, seen, strict=True)])


def many_keys(estimate, num_keys, seed=0):
    """Results of all keys, computed together."""
    keys = jax.random.split(jax.random.key(seed), num_keys)
    return jax.device_get(jax.jit(jax.vmap(estimate))(keys))


# Against exact values.


@pytest.mark.slow
def test_mean_weight_is_unbiased():
    """E[exp(-nll)] = p(X) with six temperatures, far from convergence; five modalities, masks."""
    case, model, data, mask, batch = make_problem(5, num_patterns=6)
    nll = many_keys(partial(mm.compute_joint_nll_ais, model, batch, **FEW), 1000)
    assert_within(*mean_and_error(np.exp(exact_nll(case, data, mask)[None] - nll)), np.ones(6))


@pytest.mark.slow
def test_unbiased_with_many_temperatures_and_adapted_steps():
    """The same after a hundred transitions, whose steps follow the pilots."""
    case, model, data, mask, batch = make_problem(3)
    counts = {"num_chains": 1, "num_temperatures": 100, "num_leapfrog": 2}
    nll = many_keys(partial(mm.compute_joint_nll_ais, model, batch, **counts), 4000)
    ratio = np.exp(exact_nll(case, data, mask)[None] - nll)
    assert_within(*mean_and_error(ratio), np.ones(7))
    assert ratio.std() < 0.5


@pytest.mark.slow
def test_narrow_posterior_that_no_expert_finds():
    """Experts in the wrong place: importance sampling is nats too large, annealing is right."""
    wide = linear_gaussian(2, latent_dim=3)
    case = dataclasses.replace(wide, sigma={m: s / 20 for m, s in wide.sigma.items()})
    model, data = case.model(), case.sample(4)
    for encoder in model.encoders.values():
        encoder.kernel.set_value(jnp.zeros_like(encoder.kernel[...]))
    truth = -case.log_prob(data, case.names)
    sampled = mm.compute_joint_nll(model, mm.Batch(data), jax.random.key(0), K=1000)
    assert np.all(sampled - truth > 3)
    annealed, diagnostics = optimised_jit(
        partial(
            mm.compute_joint_nll_ais,
            model,
            num_temperatures=400,
            num_leapfrog=5,
            return_diagnostics=True,
        )
    )(mm.Batch(data), jax.random.key(0))
    np.testing.assert_allclose(annealed, truth, atol=1)
    assert np.all(diagnostics.ess > 2)
    np.testing.assert_allclose(diagnostics.acceptance, 0.65, atol=0.1)


@pytest.mark.slow
def test_laplace_family_against_quadrature():
    """One latent axis with kinks in its densities; a Laplace and a categorical modality."""
    model, data, mask = curved_problem()
    z = np.linspace(-12, 12, 24_001)
    decoded = {m: np.asarray(x) for m, x in mm.decode(model, jnp.asarray(z)[:, None]).items()}
    logits = decoded["c"] - logsumexp(decoded["c"], axis=-1, keepdims=True)
    log_p = {
        "a": laplace.logpdf(data["a"][:, None], decoded["a"][None], 0.2).sum(-1),
        "c": np.einsum("bij,zij->bz", data["c"], logits),
    }
    log_joint = laplace.logpdf(z)[None] + sum(
        np.where(mask[m][:, None], log_p[m], 0) for m in log_p
    )
    truth = -logsumexp(log_joint, axis=1) - np.log(z[1] - z[0])
    batch = mm.Batch(hide(data, mask), mask)
    estimate = partial(mm.compute_joint_nll_ais, model, batch, **FEW)
    ratio = np.exp(truth[None] - many_keys(estimate, 1000))
    assert_within(*mean_and_error(ratio), np.ones(len(truth)))


def curved_problem():
    """Posteriors narrower than the prior, of three patterns of missing modalities."""
    family = mm.Family(jnp.exp, FAMILIES["laplace_with_softmax"].log_prob, jax.random.laplace)
    config = mm.MMVAEConfig(
        prior_and_posterior_dist=family,
        input_dims={"a": (2,), "c": (2, 3)},
        decoders_dist={"a": "laplace", "c": "categorical"},
        decoder_dist_params={"a": {"scale": 0.2}},
        latent_dim=1,
    )
    encoders = {m: SmallEncoder(dim, 1, m) for m, dim in config.input_dims.items()}
    decoders = {m: SmallDecoder(1, dim, m) for m, dim in config.input_dims.items()}
    model = mm.MMVAE(config, encoders, decoders, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    classes = np.eye(3)[rng.integers(0, 3, (3, 2))]
    mask = {"a": np.array([True, True, False]), "c": np.array([True, False, True])}
    return model, {"a": rng.normal(size=(3, 2)), "c": classes}, mask


# From both sides.


@pytest.mark.slow
def test_bounds_hold_the_exact_value_and_close():
    """E[exp(lower)] p(X) = 1 = E[exp(-upper)] / p(X); more temperatures, less of a gap."""
    case, num_keys = linear_gaussian(3), 600
    model, mask = case.model(), {m: np.array([m != "b"]) for m in case.names}

    def bounds(key, num_temperatures):
        counts = {**FEW, "num_temperatures": num_temperatures}
        return mm.bound_joint_nll_ais(model, 1, key, mask=mask, **counts)

    data = many_keys(partial(drawn_data, model), num_keys)
    data = {m: x[:, 0] for m, x in data.items()}
    truth = exact_nll(case, data, {m: np.repeat(seen, num_keys) for m, seen in mask.items()})
    rough, fine = (many_keys(partial(bounds, num_temperatures=num), num_keys) for num in (3, 12))
    for lower, upper in (rough, fine):
        for ratio in (np.exp(lower[:, 0] - truth), np.exp(truth - upper[:, 0])):
            assert_within(*mean_and_error(ratio), 1.0)
    assert_above(rough.upper[:, 0] - truth)
    assert_above(truth - rough.lower[:, 0])
    assert (fine.upper - fine.lower).mean() < (rough.upper - rough.lower).mean() / 2


def assert_above(differences):
    """Positive on average, beyond doubt."""
    mean, error = mean_and_error(differences)
    assert mean > 4 * error


def drawn_data(model, key):
    """The example that ``bound_joint_nll_ais`` draws with this key."""
    prior_key, data_key, _ = jax.random.split(key, 3)
    z = mm.generate_from_prior(model, prior_key, 1)
    return mm.decode(model, z, key=data_key, sample=True)


@pytest.mark.slow
def test_bounds_of_classes_and_missing_modalities():
    """Normal, Bernoulli and categorical draws, every pattern of masks; 0 where nothing is seen."""
    model = make_small_model()
    counts = {"num_temperatures": 30, "num_leapfrog": 3, "step_size": 0.5}
    lower, upper = mm.bound_joint_nll_ais(model, 8, jax.random.key(0), mask=every_mask(), **counts)
    assert lower[0] == upper[0] == 0
    assert np.all(upper[1:] != lower[1:])
    np.testing.assert_allclose(lower, upper, atol=1.5)


# Invariance.


@pytest.mark.slow
def test_fillers_neighbours_and_chunks():
    """NaN or anything where masked, other examples beside it, other tiles: the same answer."""
    _, model, data, mask, batch = make_problem(3)

    def estimate(batch, **options):
        return mm.compute_joint_nll_ais(model, batch, jax.random.key(0), **FEW, **options)

    expected = estimate(batch)
    for filler in (0.0, np.inf, 1e30):
        chex.assert_trees_all_equal(estimate(mm.Batch(hide(data, mask, filler), mask)), expected)
    chex.assert_trees_all_close(estimate(batch, batch_size_K=20), expected, **ROUNDING)
    order = np.array([6, 2, 2, 0])
    some = jax.tree.map(lambda a: a[order], batch)
    chex.assert_trees_all_close(estimate(some), expected[order], **ROUNDING)
    without = mm.Batch({"a": data["a"]})
    unseen = {m: np.full(7, m == "a") for m in mask}
    chex.assert_trees_all_close(
        estimate(without), estimate(mm.Batch(hide(data, unseen), unseen)), **ROUNDING
    )


def test_nothing_observed_and_key():
    _, model, data, mask, _ = make_problem(3)
    for value in mask.values():
        value[1] = False
    batch = mm.Batch(hide(data, mask), mask)
    keys = [jax.random.key(seed) for seed in (0, 0, 1)]
    first, again, other = (mm.compute_joint_nll_ais(model, batch, key, **FEW) for key in keys)
    assert first[1] == 0
    np.testing.assert_array_equal(first, again)
    assert np.all((first != other) == (np.arange(7) != 1))


@pytest.mark.slow
def test_vmap_over_models():
    _, model, _, _, batch = make_problem(3)
    graphdef, state = nnx.split(model)
    states = [state, jax.tree.map(lambda a: 1.1 * a, state)]

    def estimate(model):
        return mm.compute_joint_nll_ais(model, batch, jax.random.key(0), **FEW)

    stack = nnx.merge(graphdef, jax.tree.map(lambda *a: jnp.stack(a), *states))
    single = jnp.stack([estimate(nnx.merge(graphdef, state)) for state in states])
    chex.assert_trees_all_close(jax.vmap(estimate)(stack), single, **ROUNDING)


# Errors.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_chains", 0),
        ("num_temperatures", 0),
        ("num_leapfrog", 0),
        ("step_size", -0.1),
        ("batch_size_K", -1),
    ],
)
def test_bad_settings(field, value):
    model = make_small_model()
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        mm.compute_joint_nll_ais(model, mm.Batch({}), jax.random.key(0), **{field: value})
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        mm.bound_joint_nll_ais(model, 3, jax.random.key(0), **{field: value})


def test_bad_number_of_examples_and_mask():
    model = make_small_model()
    with pytest.raises(ValueError, match="num_examples is 0"):
        mm.bound_joint_nll_ais(model, 0, jax.random.key(0))
    with pytest.raises(ValueError, match=r"batch.mask\['a'\] has shape"):
        mm.bound_joint_nll_ais(model, 3, jax.random.key(0), mask=every_mask())
