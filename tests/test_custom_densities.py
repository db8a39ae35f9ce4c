"""Likelihoods and posterior families of one's own."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from flax import nnx
from helpers.separate_experts import key
from helpers.small_model import every_mask, make_data, make_model

import mmvae_jax as mm
from mmvae_jax.maths.distributions import FAMILIES
from mmvae_jax.maths.likelihoods import LIKELIHOODS

DIM = 3

loss_of = jax.jit(mm.loss)
value_and_grad = jax.jit(mm.value_and_grad)


def poisson_log_prob(decoded, x, *, exposure):
    return jax.scipy.stats.poisson.logpmf(x, exposure * jnp.exp(decoded)).sum()


def poisson_sample(key, decoded, *, exposure):
    return jax.random.poisson(key, exposure * jnp.exp(decoded)).astype(decoded.dtype)


POISSON = mm.Likelihood(poisson_log_prob, poisson_sample)


def make_counts(likelihood=POISSON, **fields):
    config = mm.MMVAEConfig(
        input_dims={"counts": (DIM,), "x": (2,)},
        decoders_dist={"counts": likelihood},
        decoder_dist_params={"counts": {"exposure": 4.0}},
        latent_dim=2,
        K=3,
        **fields,
    )
    return mm.MMVAE(config, rngs=nnx.Rngs(0))


def make_arrays():
    rng = np.random.default_rng(0)
    counts, x = rng.poisson(4.0, (8, DIM)), rng.normal(size=(8, 2))
    return {"counts": counts.astype(np.float32), "x": x.astype(np.float32)}


def test_draws_from_a_likelihood_of_ones_own():
    """Their means and variances are those of the Poisson that was decoded."""
    model = make_counts()
    z = jax.random.normal(key(), (2, 2))
    rate = 4.0 * np.exp(mm.decode(model, z, modalities="counts")["counts"])
    many = jnp.broadcast_to(z[:, None], (2, 4000, 2))
    x = mm.decode(model, many, modalities="counts", key=jax.random.key(1), sample=True)["counts"]
    error = np.sqrt(rate / 4000)
    assert (np.abs(x.mean(1) - rate) < 4 * error).all()
    np.testing.assert_allclose(x.var(1), rate, rtol=0.15)
    np.testing.assert_array_equal(x, np.round(x))


def test_a_density_alone_is_a_likelihood_without_draws():
    model = make_counts(poisson_log_prob)
    batch = mm.Batch(make_arrays())
    assert loss_of(model, batch, key()) == loss_of(make_counts(), batch, key())
    with pytest.raises(ValueError, match=r"\['counts'\] give densities and no draws: use sample=F"):
        mm.generate(model, key(), 3, sample=True)


@pytest.mark.slow
def test_its_parameters_can_be_overridden():
    """Also by arrays: the likelihood is one's own."""
    batch, exposure = mm.Batch(make_arrays()), jnp.array([1.0, 4.0, 2.0])
    overrides = mm.Overrides(decoder_dist_params={"counts": {"exposure": exposure}})
    model = make_counts(loss="elbo")
    metrics, _ = value_and_grad(model, batch, key(), overrides=overrides)
    shifted = mm.Overrides(decoder_dist_params={"counts": {"exposure": 2 * exposure}})
    doubled, _ = value_and_grad(model, batch, key(), overrides=shifted)
    # log Poisson(x; 2 r) - log Poisson(x; r) = x log 2 - r, whose mean over r is known.
    expected = make_arrays()["counts"].sum(1).mean() * np.log(2)
    rate = (
        jax.grad(
            lambda c: loss_of(
                model,
                batch,
                key(),
                overrides=mm.Overrides(decoder_dist_params={"counts": {"exposure": c * exposure}}),
            )
        )(1.0)
        + make_arrays()["counts"].sum(1).mean()
    )
    difference = doubled["log_likelihood/counts"] - metrics["log_likelihood/counts"]
    np.testing.assert_allclose(difference, expected - rate, rtol=1e-4)


@pytest.mark.slow
def test_a_run_with_functions_is_saved_and_loaded(tmp_path):
    """Files hold their names; whoever loads the run gives them."""
    model = make_counts(prior_and_posterior_dist=LOGISTIC)
    state = mm.create_train_state(model, optax.sgd(1e-6), key=key())
    options = {"batch_size": 4, "checkpoint_dir": tmp_path, "progress": False}
    result = mm.fit(state, mm.MultimodalArrays(make_arrays()), num_steps=2, **options)
    loaded, config = mm.load(tmp_path, config=model.config)
    assert config == model.config
    chex.assert_trees_all_equal(
        nnx.to_pure_dict(nnx.state(loaded)), nnx.to_pure_dict(nnx.state(result.state.model()))
    )
    with pytest.raises(ValueError, match=r"choose one of"):
        mm.load(tmp_path)
    with pytest.raises(ValueError, match=r"config has other values than the run for \['K'\]"):
        mm.load(tmp_path, config=model.config.replace(K=5))
    with pytest.raises(
        ValueError, match=r"decoders_dist\['counts'\] is .*, which JSON cannot hold"
    ):
        config.to_json()


def logistic_log_prob(z, loc, scale):
    return jax.scipy.stats.logistic.logpdf((z - loc) / scale).sum(-1) - jnp.log(scale).sum(-1)


LOGISTIC = mm.Family(
    lambda raw: jax.nn.softplus(raw) + 1e-3, logistic_log_prob, jax.random.logistic
)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["mixture_dreg_looser", "elbo"])
def test_a_family_written_again_is_the_same(loss):
    """The normal of one's own and the package's: the same value, gradient and draws."""

    def normal_log_prob(z, loc, scale):
        return jax.scipy.stats.norm.logpdf(z, loc, scale).sum(-1)

    own = mm.Family(FAMILIES["normal"].to_scale, normal_log_prob, jax.random.normal)
    batch = mm.Batch(make_data(), every_mask())
    ours, theirs = (
        make_model(loss=loss, prior_and_posterior_dist=family) for family in (own, "normal")
    )
    # The two order their sums differently.
    chex.assert_trees_all_close(
        value_and_grad(ours, batch, key()),
        value_and_grad(theirs, batch, key()),
        rtol=1e-3,
        atol=1e-4,
    )
    full = mm.Batch(make_data())
    chex.assert_trees_all_equal(mm.encode(ours, full, key()), mm.encode(theirs, full, key()))
    chex.assert_trees_all_equal(
        mm.generate_from_prior(ours, key(), 4), mm.generate_from_prior(theirs, key(), 4)
    )


@pytest.mark.slow
def test_a_logistic_posterior():
    """Draws have its variance, and importance sampling from it finds the likelihood."""
    model = make_counts(prior_and_posterior_dist=LOGISTIC)
    scale = model.pz_params[1]
    z = mm.generate_from_prior(model, key(), 20_000)
    assert scipy.stats.kstest(z[:, 0] / scale[0], "logistic").pvalue > 1e-3
    few = jax.tree.map(lambda x: x[:2], mm.Batch(make_arrays()))
    each = {
        given: mm.compute_marginal_nll(
            model, few, key(), modality="counts", cond_mod=given, K=20_000
        )
        for given in ("all", "x")
    }
    np.testing.assert_allclose(each["all"], each["x"], atol=0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prior_and_posterior_dist": "logistic"}, r"is 'logistic': choose one of \['laplace_wi"),
        ({"prior_and_posterior_dist": logistic_log_prob}, "choose one of"),
        ({"decoders_dist": {"x": 3}}, r"decoders_dist\['x'\] is 3: choose one of"),
    ],
)
def test_wrong_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        mm.MMVAEConfig(input_dims={"x": (2,)}, **fields)


@pytest.mark.parametrize(
    ("likelihood", "x", "message"),
    [
        (
            "normal",
            {"x": np.ones((2, 3))},
            r"is a dict, expected an array: several arrays need a c",
        ),
        (
            "own",
            {"x": np.ones((2, 3)), "n": np.ones(3)},
            r"has arrays of the shapes \[\(3,\), \(2,",
        ),
        ("own", {"x": 1.0}, r"has arrays of the shapes \[\(\)\]: give each the examples"),
        ("own", {}, r"has arrays of the shapes \[\]: give each the examples"),
        ("normal", None, r"is a NoneType, expected an array"),
    ],
)
def test_wrong_data(likelihood, x, message):
    dist = {} if likelihood == "normal" else {"x": mm.Likelihood(LIKELIHOODS["normal"].log_prob)}
    model = mm.MMVAE(mm.MMVAEConfig(input_dims={"x": (3,)}, decoders_dist=dist), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=message):
        mm.loss(model, mm.Batch({"x": x}), key())
