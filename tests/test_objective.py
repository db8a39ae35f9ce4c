"""The objective on whole models: masks, metrics, random layers, composition."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.small_model import (
    DIMS,
    NUM_EXAMPLES,
    SmallDecoder,
    SmallEncoder,
    every_mask,
    make_data,
    make_model,
)

import mmvae_jax as mm
from mmvae_jax.maths.distributions import FAMILIES
from mmvae_jax.maths.losses import LOSSES


@pytest.fixture
def data():
    return make_data()


@pytest.fixture
def mask():
    return every_mask()


value_and_grad = jax.jit(mm.value_and_grad)

# Every bound and every estimator once; the other names combine them anew.
FAST_LOSSES = ("iwae", "dreg_looser", "stl_looser", "adaptive_dreg", "elbo")


def rows(tree, index):
    return jax.tree.map(lambda a: a[index], tree)


@pytest.mark.parametrize(
    ("loss", "family"),
    [
        pytest.param(loss, family, marks=() if loss in FAST_LOSSES else pytest.mark.slow)
        for loss, family in zip(LOSSES, itertools.cycle(FAMILIES))
    ],
)
def test_missing_data_change_no_bit(loss, family, data, mask):
    """Neither NaN, inf nor large numbers in missing places reach the loss, metrics or gradient."""
    model = make_model(loss=loss, prior_and_posterior_dist=family)

    def filled(filler):
        spoilt = {
            m: jnp.where(mask[m].reshape(-1, *[1] * (x.ndim - 1)), x, filler)
            for m, x in data.items()
        }
        return value_and_grad(model, mm.Batch(data=spoilt, mask=mask), jax.random.key(1))

    expected = filled(0.0)
    chex.assert_tree_all_finite(expected)
    for filler in (jnp.nan, jnp.inf, 1e30):
        chex.assert_trees_all_equal(filled(filler), expected)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["dreg_looser", "adaptive_dreg", "elbo"])
def test_nothing_observed_contributes_nothing(loss, data, mask):
    """A batch without its empty example has the same loss and gradient: a mean over the others."""
    model = make_model(loss=loss)
    noise = {m: jax.random.laplace(jax.random.key(i), (3, 8, 4)) for i, m in enumerate(DIMS)}
    batch = mm.Batch(data=data, mask=mask)
    others = slice(1, None)  # example 0 has nothing
    expected = value_and_grad(
        model, rows(batch, others), noise={m: x[:, others] for m, x in noise.items()}
    )
    chex.assert_trees_all_close(
        value_and_grad(model, batch, noise=noise), expected, rtol=1e-4, atol=1e-5
    )


def test_everything_missing(data):
    nothing = dict.fromkeys(DIMS, np.zeros(NUM_EXAMPLES, bool))
    metrics, grads = value_and_grad(
        make_model(), mm.Batch(data=data, mask=nothing), jax.random.key(0)
    )
    assert metrics["loss"] == 0
    assert all(not leaf.any() for leaf in jax.tree.leaves(grads))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["dreg_looser", "adaptive_dreg"])
def test_a_full_mask_is_no_mask(loss, data):
    full = dict.fromkeys(DIMS, np.ones(NUM_EXAMPLES, bool))
    model = make_model(loss=loss)
    chex.assert_trees_all_close(
        value_and_grad(model, mm.Batch(data=data, mask=full), jax.random.key(1)),
        value_and_grad(model, mm.Batch(data=data), jax.random.key(1)),
        rtol=1e-5,  # two programs, which may sum in different orders
        atol=1e-6,
    )


@pytest.mark.parametrize("beta", [1.0, 2.5])
def test_elbo_is_likelihoods_minus_kl(beta, data):
    """-loss = sum_m factor_m log_likelihood/m - beta kl, of the metrics themselves."""
    model = make_model(loss="elbo", beta=beta, uses_likelihood_rescaling=True)
    metrics, _ = value_and_grad(model, mm.Batch(data=data), jax.random.key(2))
    factors = model.config.likelihood_factors
    likelihood = sum(factors[m] * metrics[f"log_likelihood/{m}"] for m in DIMS)
    np.testing.assert_allclose(-metrics["loss"], likelihood - beta * metrics["kl"], rtol=1e-5)


def test_metrics(data):
    model = make_model()
    metrics, grads = value_and_grad(model, mm.Batch(data=data), jax.random.key(3))
    per_modality = [f"{name}/{m}" for name in ("bound", "log_likelihood") for m in DIMS]
    scalars = {
        "loss",
        "kl",
        "ess",
        "max_weight",
        "min_scale",
        "grad_norm",
        "backward_share",
        "dropped_mass",
    }
    assert set(metrics) == {*scalars, *per_modality}
    np.testing.assert_allclose(
        -metrics["loss"], np.mean([metrics[f"bound/{m}"] for m in DIMS]), rtol=1e-6
    )
    assert 1 <= metrics["ess"] <= 3
    assert 1 / 3 <= metrics["max_weight"] <= 1
    squares = sum(jnp.square(g).sum() for g in jax.tree.leaves(grads))
    np.testing.assert_allclose(metrics["grad_norm"], jnp.sqrt(squares), rtol=1e-5)
    chex.assert_trees_all_equal_shapes(grads, nnx.state(model, nnx.Param))


def test_loss_composes_with_grad(data):
    """`loss` under jax.grad and nnx.grad, alone and in a larger sum, gives the same gradient."""
    model, batch = make_model(), mm.Batch(data=data)

    @jax.jit
    def twice_the_loss(model):
        return nnx.value_and_grad(lambda model: 2 * mm.loss(model, batch, jax.random.key(4)))(model)

    metrics, grads = value_and_grad(model, batch, jax.random.key(4))
    loss, nnx_grads = twice_the_loss(model)
    np.testing.assert_allclose(loss, 2 * metrics["loss"], rtol=1e-6)
    doubled = jax.tree.map(lambda g: 2 * g, grads)
    chex.assert_trees_all_close(nnx_grads, doubled, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_jit_equals_eager(data, mask):
    model, batch = make_model(loss="mixture_dreg"), mm.Batch(data=data, mask=mask)
    eager = mm.value_and_grad(model, batch, jax.random.key(6))
    compiled = value_and_grad(model, batch, jax.random.key(6))
    chex.assert_trees_all_close(eager, compiled, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_examples_are_independent(data):
    """Each example's bound is that of the example alone, given its noise."""
    model = make_model(loss="elbo")
    noise = {m: jax.random.laplace(jax.random.key(i), (3, 8, 4)) for i, m in enumerate(DIMS)}
    whole, _ = value_and_grad(model, mm.Batch(data=data), noise=noise)
    alone = [
        value_and_grad(
            model,
            rows(mm.Batch(data=data), slice(b, b + 1)),
            noise={m: x[:, b : b + 1] for m, x in noise.items()},
        )[0]["loss"]
        for b in range(NUM_EXAMPLES)
    ]
    np.testing.assert_allclose(whole["loss"], np.mean(alone), rtol=1e-5)


def test_integer_classes_equal_one_hot(data):
    model = make_model()
    integers = {**data, "c": data["c"].argmax(-1)}
    chex.assert_trees_all_close(
        value_and_grad(model, mm.Batch(data=integers), jax.random.key(7)),
        value_and_grad(model, mm.Batch(data=data), jax.random.key(7)),
        rtol=1e-5,
        atol=1e-6,
    )


class Noisy(nnx.Module):
    """An encoder with dropout; `streams` says where its randomness comes from."""

    def __init__(self, streams):
        self.inner = SmallEncoder(DIMS["a"], 4, "a")
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(3) if streams == "own" else None)

    def __call__(self, x, rngs=None):
        return self.inner(self.dropout(x, rngs=rngs))


class NoisyOwn(Noisy):
    def __call__(self, x):
        return self.inner(self.dropout(x))


ENCODERS = {"own": NoisyOwn, "call": Noisy}


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["own", "call"])
def test_dropout_draws_from_the_key(streams, data):
    """Own streams and ``rngs=`` at call time: the key decides, the model stays as it is."""
    config = make_model().config
    model = mm.MMVAE(config, {"a": ENCODERS[streams](streams)}, rngs=nnx.Rngs(0))
    batch = mm.Batch(data=data)
    noise = {m: jnp.zeros((3, 8, 4)) for m in DIMS}
    before = nnx.to_pure_dict(nnx.state(model))
    losses = [
        float(value_and_grad(model, batch, jax.random.key(seed), noise=noise)[0]["loss"])
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]
    chex.assert_trees_all_equal(nnx.to_pure_dict(nnx.state(model)), before)
    model.eval()
    quiet = [
        float(value_and_grad(model, batch, jax.random.key(seed), noise=noise)[0]["loss"])
        for seed in (0, 1)
    ]
    assert quiet[0] == quiet[1] != losses[0]


def test_batchnorm_is_refused_by_name():
    class Normed(nnx.Module):
        def __init__(self):
            self.norm = nnx.BatchNorm(6, rngs=nnx.Rngs(0))

    with pytest.raises(ValueError, match=r"encoders\['a'\] keeps the state 'norm.mean'.*LayerNorm"):
        mm.MMVAE(make_model().config, {"a": Normed()}, rngs=nnx.Rngs(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("networks", "message"),
    [
        ({"encoders": {"d": nnx.Linear(1, 1, rngs=nnx.Rngs(0))}}, r"encoders has the unknown.*'d'"),
        (
            {"encoders": {"a": nnx.Linear(6, 4, rngs=nnx.Rngs(0))}},
            r"encoders\['a'\] returned shape \(8, 4\), expected a pair \(loc, log_var\)",
        ),
        (
            {"encoders": {"a": SmallEncoder((6,), 5, "a")}},
            r"encoders\['a'\] returned \(shape \(8, 5\), shape \(8, 5\)\), expected .*\(8, 4\)",
        ),
        (
            {"decoders": {"b": SmallDecoder(4, (16,), "b")}},
            r"decoders\['b'\] returned shape \(72, 16\), expected shape \(72, 4, 4, 1\)",
        ),
    ],
)
def test_wrong_networks(networks, message, data):
    def build_and_run():
        model = mm.MMVAE(make_model().config, **networks, rngs=nnx.Rngs(0))
        return mm.value_and_grad(model, mm.Batch(data=data), jax.random.key(0))

    with pytest.raises(ValueError, match=message):
        build_and_run()


def test_randomness_is_required(data):
    with pytest.raises(ValueError, match="key and noise are both None"):
        mm.value_and_grad(make_model(), mm.Batch(data=data))
    noise = {m: jnp.zeros((2, 8, 4)) for m in DIMS}
    with pytest.raises(
        ValueError, match=r"noise\['a'\] has shape \(2, 8, 4\), expected \(3, 8, 4\)"
    ):
        mm.value_and_grad(make_model(), mm.Batch(data=data), noise=noise)


def test_prior_is_trained_only_if_asked(data):
    fixed = make_model(learn_prior=False)
    _, grads = value_and_grad(fixed, mm.Batch(data=data), jax.random.key(8))
    assert "prior_log_var" not in nnx.to_pure_dict(grads)
    _, grads = value_and_grad(make_model(), mm.Batch(data=data), jax.random.key(8))
    assert grads["prior_log_var"][...].any()


def test_default_networks_are_multivaes():
    """MLPs of 512-512 and 512; a sigmoid for images under normal or laplace only."""
    model = mm.MMVAE(make_model(decoders_dist={"a": "normal"}).config, rngs=nnx.Rngs(0))
    encoder, decoder = model.encoders["b"], model.decoders["b"]
    assert [layer.kernel.shape for layer in encoder.hidden] == [(16, 512), (512, 512)]
    assert [layer.kernel.shape for layer in decoder.hidden] == [(4, 512)]
    assert {m: model.decoders[m].sigmoid for m in DIMS} == {"a": False, "b": True, "c": False}
    logits = mm.MMVAE(make_model().config, rngs=nnx.Rngs(0))
    assert not logits.decoders["b"].sigmoid
