"""Particles of a random choice of experts: unbiased, and a part of the decoders' work."""

import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.small_model import DIMS, every_mask, make_data, make_model
from helpers.small_model import double as double_of

import mmvae_jax as mm
from mmvae_jax.batch import observe
from mmvae_jax.maths.particles import draw_experts
from mmvae_jax.objective import Options, batch_means
from mmvae_jax.training.loop import fit

K = 3
NUM = 2
value_and_grad = jax.jit(mm.value_and_grad, static_argnames="backward")


def given_noise():
    return {m: jax.random.laplace(jax.random.key(i), (K, 8, 4)) for i, m in enumerate(DIMS)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "backward"),
    [
        ("mixture_dreg_looser", mm.Backward("dense")),
        pytest.param(
            "dreg_looser", mm.Backward("sparse", tolerance=0.0, chunk=10), marks=pytest.mark.slow
        ),
        pytest.param("elbo", mm.Backward("dense"), marks=pytest.mark.slow),
        pytest.param("stl_looser", mm.Backward("dense"), marks=pytest.mark.slow),
    ],
)
def test_the_mean_over_all_choices_is_the_loss_of_all_experts(x64, monkeypatch, loss, backward):
    """For the same noise, to the last digits: loss and gradient, hence unbiased."""
    data, noise = double_of(make_data()), given_noise()
    whole = value_and_grad(model_of(loss), mm.Batch(data), noise=noise, backward=backward)
    found = []
    for choice in itertools.combinations(range(len(DIMS)), NUM):
        sources = jnp.broadcast_to(jnp.array(choice)[:, None], (NUM, 8))
        monkeypatch.setattr("mmvae_jax.objective._drawn_experts", lambda *_, s=sources: (s, None))
        part = jax.jit(partial(mm.value_and_grad, backward=backward))
        found.append(part(model_of(loss, experts_per_step=NUM), mm.Batch(data), noise=noise))
    losses, gradients = zip(*found, strict=True)
    np.testing.assert_allclose(np.mean([x["loss"] for x in losses]), whole[0]["loss"], rtol=1e-12)
    mean = jax.tree.map(lambda *x: sum(x) / len(x), *gradients)
    chex.assert_trees_all_close(mean, whole[1], rtol=1e-9, atol=1e-11)


def model_of(loss, **settings):
    """A model in float64."""
    model = make_model(loss=loss, K=K, **settings)
    nnx.update(model, double_of(nnx.state(model)))
    return model


def test_experts_are_drawn_evenly_among_the_observed():
    mask = jnp.array([[True, True], [True, False], [True, True], [True, False]])
    keys = jax.random.split(jax.random.key(0), 4000)
    sources = jax.vmap(lambda key: draw_experts(key, mask, NUM, jnp.arange(2)))(keys)
    counts = jax.nn.one_hot(sources, 4).sum((0, 1))  # [b m]
    expected = np.array([[0.5] * 4, [1, 0, 1, 0]])
    np.testing.assert_allclose(counts / len(keys), expected, atol=4 * 0.5 / np.sqrt(len(keys)))
    assert (sources[:, 0] != sources[:, 1]).all()


@pytest.mark.slow
def test_metrics_are_of_the_drawn_experts_and_evaluations_of_all():
    mask, options = every_mask(), Options(jax.random.key(1), backward=mm.Backward("dense"))
    model = make_model(loss="adaptive_dreg_looser", experts_per_step=1)
    batch = mm.Batch(make_data(), mask)
    means = jax.jit(batch_means)(model, batch, options)
    num_observed = observe(model.config, batch).mask.any(0).sum()
    assert means["ess"].weight == num_observed  # one expert of each example
    assert sum(means[f"bound/{name}"].weight for name in DIMS) == num_observed
    state = mm.create_train_state(model, optax.adam(1e-3), key=jax.random.key(0))
    other = make_model(loss="adaptive_dreg_looser")
    expected = mm.create_train_state(other, optax.adam(1e-3), key=jax.random.key(0))
    chex.assert_trees_all_equal(mm.eval_step(state, batch), mm.eval_step(expected, batch))


@pytest.mark.slow
def test_log_weights_are_of_all_experts():
    """Measurements of particles are evaluations, and leave the model as it was."""
    model, batch = make_model(experts_per_step=1), mm.Batch(make_data())
    found = mm.metrics.measure_log_weights(model, batch, jax.random.key(0))
    expected = mm.metrics.measure_log_weights(make_model(), batch, jax.random.key(0))
    chex.assert_trees_all_equal(found, expected)
    assert model.config.experts_per_step == 1


@pytest.mark.slow
def test_fit_learns_with_one_expert_per_step():
    data = mm.MultimodalArrays(jax.tree.map(np.asarray, make_data()), mask=every_mask())
    model = make_model(loss="adaptive_dreg_looser", experts_per_step=1)
    state = mm.create_train_state(model, optax.adam(1e-2), key=jax.random.key(0))
    before = mm.evaluate(state, data)["loss"]
    result = fit(state, data, num_steps=40, batch_size=8, progress=False)
    assert mm.evaluate(result.state, data)["loss"] < before - 0.5


@pytest.mark.slow
def test_a_part_of_the_experts_costs_a_part_of_the_decoders():
    def flops(**settings):
        model = make_model(K=16, **settings)
        call = partial(mm.loss, backward=mm.Backward("dense"))
        program = jax.jit(call).lower(model, mm.Batch(make_data()), jax.random.key(0)).compile()
        return program.cost_analysis()["flops"]

    assert flops(experts_per_step=1) < 0.45 * flops()  # a third, and the encoders


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"experts_per_step": 0}, "experts_per_step is 0"),
        ({"experts_per_step": len(DIMS) + 1}, "experts_per_step is"),
        ({"experts_per_step": 1, "loss": "dreg"}, "experts_per_step is 1"),
    ],
)
def test_wrong_numbers(settings, message):
    with pytest.raises(ValueError, match=message):
        make_model(**settings)


def test_noise_needs_a_key_for_the_choice():
    model = make_model(loss="dreg_looser", K=K, experts_per_step=1)
    with pytest.raises(ValueError, match="key is None, but experts_per_step is 1"):
        mm.loss(model, mm.Batch(make_data()), noise=given_noise())
