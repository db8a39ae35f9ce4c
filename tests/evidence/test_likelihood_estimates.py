"""Likelihood estimates against closed forms and against their own formulas."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from helpers.linear_gaussian import linear_gaussian, make_problem, masks
from helpers.monte_carlo import assert_within, mean_and_error, on_keys, relative_error, rms
from scipy.special import logsumexp
from scipy.stats import norm

import mmvae_jax as mm
from mmvae_jax.maths.proposal import components_of, particle_ends

pytestmark = pytest.mark.usefixtures("x64")

CHUNK = 1000
MANY = {"K": 10_000, "batch_size_K": CHUNK}


def exact(data, mask, log_p):
    """``-log_p(row of the data, observed names)`` row by row, NaN where log_p gives None."""
    values = []
    for b in range(len(next(iter(mask.values())))):
        row = {name: x[b : b + 1] for name, x in data.items()}
        value = log_p(row, [name for name in data if mask[name][b]])
        values.append(np.nan if value is None else -value[0])
    return np.array(values)


@pytest.mark.slow
@pytest.mark.parametrize(
    "num_modalities",
    [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)],
)
def test_joint_converges_to_the_observed_likelihood(num_modalities):
    """-log p(X_observed) for every pattern of missing modalities; the error falls as 1/sqrt(K)."""
    case, model, data, mask, batch = make_problem(num_modalities)
    truth = exact(data, mask, case.log_prob)

    def errors(K):
        estimate = partial(
            mm.compute_joint_nll, model, batch, K=K, batch_size_K=CHUNK, return_diagnostics=True
        )
        nll, diagnostics = on_keys(estimate, 4)
        standard_error = relative_error(diagnostics, K)
        assert_within(nll, standard_error, truth)
        return rms(nll - truth), standard_error.max()

    (few, _), (many, standard_error) = errors(100), errors(10_000)
    assert many < few / 5
    assert standard_error < 0.05  # The comparison above means something.


@pytest.mark.slow
@pytest.mark.parametrize(
    "num_modalities", [2, *(pytest.param(num, marks=pytest.mark.slow) for num in (3, 5))]
)
def test_marginal_converges_under_every_proposal(num_modalities):
    """The modality's own expert, another one, or all: the same value; NaN without a proposal."""
    problem = make_problem(num_modalities, num_patterns=8)
    names = problem.case.names
    many = [
        marginal_errors(problem, name, cond_mod, 10_000)
        for name, other in zip(names, np.roll(names, 1).tolist(), strict=True)
        for cond_mod in (name, other, "all")
    ]
    few = [marginal_errors(problem, names[0], cond_mod, 100) for cond_mod in (*names, "all")]
    assert rms(np.concatenate(many)) < rms(np.concatenate(few)) / 5


def marginal_errors(problem, name, cond_mod, K):
    """Errors for several keys, once they are checked to be within their standard error."""
    case, model, data, mask, batch = problem
    proposal = case.names if cond_mod == "all" else cond_mod

    def log_marginal(row, seen):
        return case.log_prob(row, [name]) if name in seen and {*proposal} & {*seen} else None

    truth = exact(data, mask, log_marginal)[None]
    estimate = partial(mm.compute_marginal_nll, model, batch, modality=name, cond_mod=cond_mod)
    estimate = partial(estimate, K=K, batch_size_K=CHUNK, return_diagnostics=True)
    nll, diagnostics = on_keys(estimate, 4)
    if K >= CHUNK:  # With fewer particles the delta method is too rough.
        assert_within(nll, relative_error(diagnostics, K), truth)
    return nll - truth


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_modalities", "given", "target"),
    [
        (2, "a", "b"),
        pytest.param(3, "b", ("c", "a"), marks=pytest.mark.slow),
        pytest.param(5, ("a", "b"), ("c", "d", "e"), marks=pytest.mark.slow),
    ],
)
def test_ratio_converges_to_the_conditional_likelihood(num_modalities, given, target):
    """-log p(x_T|x_S) of what is observed of T and of S; NaN where nothing is of either."""
    case, model, data, mask, batch = make_problem(num_modalities, num_patterns=8)

    def log_cond(row, seen):
        targets, givens = ([name for name in seen if name in names] for names in (target, given))
        return case.log_cond(row, targets, givens) if targets and givens else None

    truth = exact(data, mask, log_cond)

    def estimate(key, **counts):
        return mm.compute_cond_nll_ratio(
            model, batch, key, cond_mod=given, pred_mods=target, **counts
        )

    few, many = (on_keys(partial(estimate, **counts), 16) for counts in ({"K": 100}, MANY))
    assert_within(*mean_and_error(many), truth)
    assert rms(many - truth) < rms(few - truth) / 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        pytest.param("a", marks=pytest.mark.slow),
        pytest.param(("a", "c"), marks=pytest.mark.slow),
        "all",
    ],
)
def test_cond_converges_to_the_average_likelihood(given):
    """-log E_q p(x_t|z) with z from the mixture given: MultiVae's number, no likelihood."""
    case, model, data, mask, batch = make_problem(3)

    def estimate(key, **counts):
        return mm.compute_cond_nll(model, batch, key, cond_mod=given, **counts)

    few, many = (on_keys(partial(estimate, **counts), 16) for counts in ({"K": 100}, MANY))
    assert tuple(many) == case.names
    allowed = case.names if given == "all" else given
    for target in case.names:

        def log_average(row, seen, target=target):
            givens = [name for name in seen if name in allowed]
            return case.log_average(row, target, givens) if target in seen and givens else None

        truth = exact(data, mask, log_average)
        assert_within(*mean_and_error(many[target]), truth)
        assert rms(many[target] - truth) < rms(few[target] - truth) / 5


@pytest.mark.slow
def test_paper_converges_to_the_same_without_rescaling():
    case, model, data, mask, batch = make_problem(3)
    many = on_keys(partial(mm.compute_joint_nll_paper, model, batch, **MANY), 16)
    truth = exact(data, mask, case.log_prob)
    assert_within(*mean_and_error(many), truth)
    assert rms(many - truth) < 0.02


# Estimates recomputed from their own draws: particle k has the noise of fold_in(key, k).


def weights_by_hand(case, row, seen, sources, noise, factors, prior_share=0):
    """Log weights in 64-bit numpy of particles of the given experts or the prior, ``[k]``."""
    loc = {name: case.expert_loc(row, name)[0] for name in seen} | {"prior": 0}
    scale = {name: case.expert_scale(name) for name in seen} | {"prior": case.prior_scale}
    z = np.stack([loc[m] + scale[m] * n for m, n in zip(sources, noise, strict=True)])
    density = {m: np.exp(norm.logpdf(z, loc[m], scale[m]).sum(-1)) for m in loc}
    q = (1 - prior_share) * np.mean([density[m] for m in seen], axis=0)
    log_w = np.log(density["prior"]) - np.log(q + prior_share * density["prior"])
    for m in seen:
        mean = z @ case.weight[m].T + case.bias[m]
        log_w += factors[m] * norm.logpdf(row[m].reshape(-1), mean, case.sigma[m]).sum(-1)
    return log_w


def noise_of(seed, num_particles, dim=2):
    _, key = jax.random.split(jax.random.key(seed))
    keys = jax.vmap(partial(jax.random.fold_in, key))(np.arange(num_particles))
    return np.asarray(jax.vmap(lambda key: jax.random.normal(key, (dim,)))(keys))


@pytest.mark.parametrize("prior_share", [0.0, 0.25])
def test_joint_and_diagnostics_equal_the_formula_on_their_own_draws(prior_share):
    """The first particles come from the first expert observed, and so on, the last from the prior.

    Without a share of the prior, the estimate is the one of release 0.1.0.
    """
    case, model, data, mask, batch = make_problem(3, beta=0.3, uses_likelihood_rescaling=True)
    K = 48
    num_prior = int(prior_share * K)
    noise = noise_of(5, K)
    options = {"K": K, "batch_size_K": 70, "prior_share": prior_share, "return_diagnostics": True}
    nll, diagnostics = mm.compute_joint_nll(model, batch, jax.random.key(5), **options)
    for b in range(len(nll)):
        row = {name: x[b : b + 1] for name, x in data.items()}
        seen = [name for name in case.names if mask[name][b]]
        sources = [*np.repeat(seen, (K - num_prior) // len(seen)), *["prior"] * num_prior]
        log_w = weights_by_hand(
            case, row, seen, sources, noise, dict.fromkeys(seen, 1), prior_share
        )
        w = np.exp(log_w - logsumexp(log_w))
        np.testing.assert_allclose(nll[b], np.log(K) - logsumexp(log_w), rtol=1e-10)
        np.testing.assert_allclose(diagnostics.ess[b], 1 / np.sum(w**2), rtol=1e-10)
        np.testing.assert_allclose(diagnostics.max_weight[b], w.max(), rtol=1e-10)
        _, k = array_stats.psislw(-log_w)
        np.testing.assert_allclose(diagnostics.pareto_k[b], k, rtol=1e-8)


@pytest.mark.parametrize("factors", [None, {"a": 2.0, "b": 0.5, "c": 1.0}])
def test_paper_equals_the_formula_on_its_own_draws(factors):
    """K particles of every expert, rescaled likelihoods; beta does not enter."""
    case, model, data, mask, batch = make_problem(
        3, beta=0.3, uses_likelihood_rescaling=True, rescale_factors=factors
    )
    factors = factors or {"a": 4 / 3, "b": 1.0, "c": 2.0}  # The largest size, 4, over 3, 4 and 2.
    K = 4
    noise = noise_of(6, 3 * K).reshape(3, K, 2)
    nll = mm.compute_joint_nll_paper(model, batch, jax.random.key(6), K=K, batch_size_K=5)
    for b in range(len(nll)):
        row = {name: x[b : b + 1] for name, x in data.items()}
        seen = [m for m in case.names if mask[m][b]]
        own = np.concatenate([noise[case.names.index(m)] for m in seen])
        log_w = weights_by_hand(case, row, seen, np.repeat(seen, K), own, factors)
        np.testing.assert_allclose(nll[b], np.log(len(log_w)) - logsumexp(log_w), rtol=1e-10)


def test_one_of_everything():
    """One modality, example, particle and latent axis: every estimate is its one weight."""
    case = linear_gaussian(1, latent_dim=1)
    model, data = case.model(), case.sample(1)
    log_w = weights_by_hand(case, data, ["a"], ["a"], noise_of(7, 1, dim=1), {"a": 1})
    joint = partial(mm.compute_joint_nll, prior_share=0.0)
    marginal = partial(mm.compute_marginal_nll, modality="a", prior_share=0.0)
    for estimate in (joint, mm.compute_joint_nll_paper, marginal):
        nll = estimate(model, mm.Batch(data), jax.random.key(7), K=1, batch_size_K=1)
        np.testing.assert_allclose(nll, -log_w, rtol=1e-12)


@pytest.mark.parametrize("K", [1, 2, 30])
def test_diagnostics_are_within_their_bounds(K):
    """1 <= ess <= K, and ``1/ess <= max_weight <= 1/sqrt(ess)``; two weights are known from ess."""
    _, model, _, _, batch = make_problem(3)
    _, (ess, largest, _) = mm.compute_joint_nll(
        model, batch, jax.random.key(0), K=K, return_diagnostics=True
    )
    chex.assert_equal_shape([ess, largest, batch.mask["a"]])
    slack = 1e-9
    assert np.all((ess >= 1 - slack) & (ess <= K + slack))
    assert np.all((largest >= 1 / ess - slack) & (largest <= 1 / np.sqrt(ess) + slack))
    if K <= 2:
        np.testing.assert_allclose(
            largest, (1 + np.sqrt(np.maximum(2 / ess - 1, 0))) / 2 if K == 2 else 1
        )


def test_equal_weights_have_the_whole_sample_as_effective_size():
    """Decoders that ignore z and experts that are the prior: every weight is p(x)."""
    case = linear_gaussian(2)
    model, data = case.model(), case.sample(3)
    for name in case.names:
        model.decoders[name].linear.kernel.set_value(
            jnp.zeros_like(model.decoders[name].linear.kernel)
        )
        model.encoders[name].kernel.set_value(jnp.zeros_like(model.encoders[name].kernel[...]))
        model.encoders[name].log_var.set_value(model.prior_log_var[...])
    nll, (ess, largest, k) = mm.compute_joint_nll(
        model, mm.Batch(data), jax.random.key(0), K=30, return_diagnostics=True
    )
    np.testing.assert_allclose(ess, 30)
    np.testing.assert_allclose(largest, 1 / 30)
    np.testing.assert_array_equal(k, -np.inf)
    squares = [
        norm.logpdf(data[m].reshape(3, -1), case.bias[m], case.sigma[m]).sum(-1) for m in case.names
    ]
    np.testing.assert_allclose(nll, -sum(squares))


@pytest.mark.slow
def test_gradient_converges_to_that_of_the_likelihood():
    """With respect to the decoders' biases: ``-d log p(x)/db = -C^-1 (x - b)``."""
    case, model, data, _, _ = make_problem(2)
    data = {name: x[:1] for name, x in data.items()}

    def nll(model):
        return mm.compute_joint_nll(model, mm.Batch(data), jax.random.key(0), **MANY)[0]

    decoders = jax.grad(nll)(model).decoders
    w = np.concatenate(list(case.weight.values()))
    noise = np.repeat(list(case.sigma.values()), [len(bias) for bias in case.bias.values()])
    cov = w @ np.diag(case.prior_scale**2) @ w.T + np.diag(noise**2)
    x = np.concatenate([x.ravel() for x in data.values()])
    exact = -np.linalg.solve(cov, x - np.concatenate(list(case.bias.values())))
    found = np.concatenate([decoder.linear.bias[...] for decoder in decoders.values()])
    np.testing.assert_allclose(found, exact, atol=0.03 * np.abs(exact).max())


# The particles' components.


def counts_of(mask, K, prior_share, offset):
    """Number of particles of every expert, then of the prior, ``[m+1 b]``."""
    available = jnp.asarray(mask)
    ends = particle_ends(available, K, prior_share, offset)
    component = components_of(jnp.arange(K), ends, available)
    return (component[None] == jnp.arange(len(mask) + 1)[:, None, None]).sum(1)


def shares_of(mask, prior_share):
    """Share of every expert, then of the prior, ``[m+1 b]``."""
    return np.concatenate([(1 - prior_share) * mask / mask.sum(0), [[prior_share] * mask.shape[1]]])


@pytest.mark.parametrize("K", [1, 2, 12, 60, 10_000, 100_002])
@pytest.mark.parametrize("prior_share", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_particles_are_spread_by_the_shares_of_components(K, prior_share, dtype):
    """K times the share each, or that rounded up or down; none from what is not observed."""
    mask = np.stack(list(masks(("a", "b", "c", "d", "e"), 12).values()))
    expected = K * shares_of(mask, prior_share)
    for offset in (0, 0.3, 0.5, np.nextafter(dtype(1), dtype(0))):
        counts = np.asarray(counts_of(mask, K, prior_share, jnp.asarray(offset, dtype)))
        np.testing.assert_array_equal(counts.sum(0), K)
        assert np.all(np.abs(counts - expected) < 1)
        assert np.all(counts[:-1][~mask] == 0)


@pytest.mark.parametrize("K", [1, 2, 3, 4, 10])
@pytest.mark.parametrize("prior_share", [0.0, 0.125, 0.3])
def test_every_component_gets_its_share_over_the_offset(K, prior_share):
    """The mean count over all offsets is K times the share, also where that is below 1."""
    mask = np.stack(list(masks(("a", "b", "c"), None).values()))
    offsets = (jnp.arange(2400) + 0.5) / 2400
    counts = jax.vmap(partial(counts_of, mask, K, prior_share))(offsets).mean(0)
    np.testing.assert_allclose(counts, K * shares_of(mask, prior_share), atol=1e-9)
