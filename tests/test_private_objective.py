"""The objective of models with private latents and clusters: masks, backward passes, identities."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.small_model import DIMS, double_model, every_mask, make_data, make_model

import mmvae_jax as mm
from mmvae_jax.batch import observe
from mmvae_jax.objective import Options, bound_of_batch

#: The scale of a private latent of one axis is constant under laplace_with_softmax.
pytestmark = pytest.mark.filterwarnings("ignore:modalities_specific_dim is 1")

PRIVATE = {"modalities_specific_dim": {"a": 2, "b": 0, "c": 1}}
BOTH = {**PRIVATE, "number_of_clusters": 3, "learn_prior": True}
DENSE = mm.Backward("dense")
value_and_grad = jax.jit(mm.value_and_grad, static_argnames="backward")


def private_noise(K=3, dim=7, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    return {m: jax.random.laplace(k, (K, 8, dim)) for m, k in zip(DIMS, keys, strict=True)}


def spoilt(batch, filler):
    data = {
        m: jnp.where(batch.mask[m].reshape(-1, *[1] * (x.ndim - 1)), x, filler)
        for m, x in batch.data.items()
    }
    return batch.replace(data=data)


@pytest.fixture
def batch():
    return mm.Batch(make_data(), every_mask())


@pytest.mark.parametrize(
    "loss",
    ["adaptive_dreg_looser", *(pytest.param(x, marks=pytest.mark.slow) for x in ("iwae", "elbo"))],
)
def test_missing_data_change_no_bit(batch, loss):
    model = make_model(loss=loss, **BOTH)
    expected = value_and_grad(model, spoilt(batch, 0.0), jax.random.key(1), backward=DENSE)
    chex.assert_tree_all_finite(expected)
    for filler in (jnp.nan, jnp.inf, 1e30):
        ours = value_and_grad(model, spoilt(batch, filler), jax.random.key(1), backward=DENSE)
        chex.assert_trees_all_equal(ours, expected)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["adaptive_dreg", "mixture_dreg_looser"])
def test_nothing_observed_contributes_nothing(batch, loss):
    """The batch without its empty example has the same loss and gradient."""
    model, noise = make_model(loss=loss, **BOTH), private_noise()
    ours = value_and_grad(model, batch, noise=noise)
    others = jax.tree.map(lambda a: a[1:], batch)
    expected = value_and_grad(model, others, noise={m: x[:, 1:] for m, x in noise.items()})
    chex.assert_trees_all_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_private_latents_of_missing_modalities_do_not_count(batch):
    """The noise of w_a in particles of expert c counts where both are observed."""
    model, noise = make_model(loss="iwae_looser", **BOTH), private_noise()
    moved = {**noise, "c": noise["c"].at[..., 4:6].add(1)}
    observed = observe(model.config, batch)
    bound, other = (
        bound_of_batch(model, observed, Options(noise=n))[1].bound for n in (noise, moved)
    )
    np.testing.assert_array_equal(bound != other, batch.mask["a"] & batch.mask["c"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss", ["iwae", "dreg_looser", "adaptive_dreg", "mixture_dreg_looser", "elbo"]
)
def test_sparse_without_tolerance_is_dense(x64, batch, loss):
    model = double_model(make_model(loss=loss, K=7, **BOTH))
    expected, *ours = (
        value_and_grad(model, batch, jax.random.key(1), backward=backward)
        for backward in (
            DENSE,
            mm.Backward("sparse", tolerance=0.0, chunk=10),
            mm.Backward("sparse", tolerance=0.0, chunk=1000),
        )
    )
    for found in ours:
        chex.assert_trees_all_close(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sampled", "residual"])
def test_drawn_particles_are_unbiased(x64, batch, kind):
    model = double_model(make_model(loss="mixture_dreg", K=7, **BOTH))
    noise = private_noise(K=7)
    backward = mm.Backward(kind, tolerance=0.2, chunk=64, num_backward=2)

    def flat(key, backward):
        _, grads = mm.value_and_grad(model, batch, key, noise=noise, backward=backward)
        return jnp.concatenate([g.ravel() for g in jax.tree.leaves(grads)])

    keys = jax.random.split(jax.random.key(2), 600)
    drawn = jax.jit(lambda keys: jax.lax.map(partial(flat, backward=backward), keys))(keys)
    dense = flat(None, DENSE)
    error = drawn.std(0) / np.sqrt(len(drawn))
    scores = jnp.abs(drawn.mean(0) - dense) / jnp.maximum(error, 1e-10)
    assert error.max() > 1e-5
    assert scores.max() < 6  # the largest of 850, with the heavy tails of rare draws
    assert (scores**2).mean() < 1.5


@pytest.mark.slow
def test_one_expert_per_step_is_unbiased(x64, batch):
    """The mean over the choice of experts is the gradient of all, for the same particles."""
    complete = jax.tree.map(lambda x: x[-2:], batch)
    few, whole = (
        double_model(make_model(loss="mixture_dreg_looser", experts_per_step=num, **BOTH))
        for num in (1, None)
    )

    def moments(model, seed):
        keys = jax.random.split(jax.random.key(seed), 3000)
        gradient = partial(mm.value_and_grad, model, complete, backward=DENSE)
        grads = jax.jit(lambda keys: jax.lax.map(lambda key: gradient(key)[1], keys))(keys)
        flat = np.concatenate([g.reshape(len(keys), -1) for g in jax.tree.leaves(grads)], axis=1)
        return flat.mean(0), flat.std(0) / np.sqrt(len(keys))

    (mean, error), (expected, other) = moments(few, 0), moments(whole, 1)
    scores = (mean - expected) / np.maximum(np.hypot(error, other), 1e-12)
    assert np.abs(scores).max() < 5
    assert (scores**2).mean() < 1.4


@pytest.mark.slow
def test_overrides_of_beta(batch):
    model, noise = make_model(**BOTH), private_noise()
    overrides = mm.Overrides(beta=jnp.asarray(0.3))
    ours = value_and_grad(model, batch, noise=noise, overrides=overrides)
    expected = value_and_grad(make_model(beta=0.3, **BOTH), batch, noise=noise)
    chex.assert_trees_all_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_noise_has_a_draw_for_every_axis(batch):
    noise = private_noise(dim=6)
    with pytest.raises(
        ValueError, match=r"noise\['a'\] has shape \(3, 8, 6\), expected \(3, 8, 7\)"
    ):
        mm.loss(make_model(**BOTH), batch, noise=noise)


# Identities between models.


def ignoring_private(model, plain):
    """Copies ``plain`` into u's part: decoders ignore w, and q_m(w) = p(w) = r_m(w)."""
    for name in DIMS:
        decoder, encoder = model.decoders[name], model.encoders[name]
        kernel = jnp.zeros_like(decoder.out.kernel[...])
        decoder.out.kernel.set_value(kernel.at[:4].set(plain.decoders[name].out.kernel[...]))
        decoder.out.bias.set_value(plain.decoders[name].out.bias[...])
        encoder.hidden = plain.encoders[name].hidden
        for part in ("loc", "log_var"):
            layer, given = getattr(encoder, part), getattr(plain.encoders[name], part)
            layer.kernel.set_value(
                jnp.zeros_like(layer.kernel[...]).at[:, :4].set(given.kernel[...])
            )
            layer.bias.set_value(jnp.zeros_like(layer.bias[...]).at[:4].set(given.bias[...]))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["adaptive_dreg", "mixture_dreg_looser", "elbo"])
def test_private_latents_that_nothing_uses(x64, batch, loss):
    """Where q_m(w) = p(w) and decoders ignore w, loss and gradient are those of MMVAE."""
    plain = double_model(make_model(loss=loss, prior_and_posterior_dist="normal"))
    fields = {"prior_and_posterior_dist": "normal", "learn_prior": True}
    model = make_model(loss=loss, **fields, **PRIVATE)
    model = ignoring_private(double_model(model), plain)
    noise = private_noise()
    metrics, grads = value_and_grad(model, batch, noise=noise)
    u_noise = {m: x[..., :4] for m, x in noise.items()}
    expected, plain_grads = value_and_grad(plain, batch, noise=u_noise)
    for name in ("loss", "kl", "ess"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-10)
    np.testing.assert_allclose(
        grads["prior_log_var"][...][:4], plain_grads["prior_log_var"][...], rtol=1e-8
    )
    for m in DIMS:
        np.testing.assert_allclose(
            grads["encoders"][m]["loc"]["kernel"][...][:, :4],
            plain_grads["encoders"][m]["loc"]["kernel"][...],
            rtol=1e-8,
            atol=1e-12,
        )


@pytest.mark.slow
def test_equal_clusters_are_one_prior(x64, batch):
    """Clusters at 0 of one scale: the loss and gradient of MMVAE, whatever their weights."""
    plain, model = (
        double_model(make_model(number_of_clusters=num, learn_prior=True)) for num in (1, 3)
    )
    raw = jnp.asarray([0.3, -0.2, 0.0, 0.4])
    plain.prior_log_var.set_value(raw)
    model.clusters["log_var"].set_value(jnp.tile(raw, (3, 1)))
    model.clusters["loc"].set_value(jnp.zeros((3, 4)))
    model.clusters["logits"].set_value(jnp.asarray([0.0, 1.0, -2.0]))
    metrics, grads = value_and_grad(model, batch, jax.random.key(0))
    expected, plain_grads = value_and_grad(plain, batch, jax.random.key(0))
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-12)
    chex.assert_trees_all_close(grads["encoders"], plain_grads["encoders"], rtol=1e-9, atol=1e-12)
    found = grads["clusters"]["log_var"][...].sum(0)
    np.testing.assert_allclose(found, plain_grads["prior_log_var"][...], rtol=1e-9)
    np.testing.assert_allclose(grads["clusters"]["logits"][...], 0, atol=1e-12)


def test_zero_private_latents_and_one_cluster_are_mmvae(batch):
    """Bit for bit, and with the same parameters."""
    zero = {"modalities_specific_dim": dict.fromkeys(DIMS, 0), "number_of_clusters": 1}
    one, other = make_model(), make_model(**zero)
    chex.assert_trees_all_equal(nnx.state(one), nnx.state(other))
    assert other.config.axes == one.config.axes
    assert other.config.learn_prior is True
    chex.assert_trees_all_equal(
        *(value_and_grad(model, batch, jax.random.key(1)) for model in (one, other))
    )


# Training.


def test_training_lowers_the_loss(batch):
    model = make_model(**BOTH)
    state = mm.create_train_state(model, optax.adam(3e-2), key=jax.random.key(0))
    losses = []
    for _ in range(30):
        state, metrics = mm.train_step(state, batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 3
    trained = state.model()
    for name, initial in model.clusters.items():
        assert np.abs(trained.clusters[name][...] - initial[...]).min() > 1e-4, name
    assert np.abs(trained.private_log_var["a"][...]).min() > 1e-4
    assert np.abs(trained.prior_log_var[...]).min() > 1e-4
