"""Signs of divergence are warned of once, with the cause and the remedy, and only then."""

import warnings

import jax
import numpy as np
import optax
import pytest
from helpers.small_model import make_data, make_model

import mmvae_jax as mm
from mmvae_jax.training.divergence import NARROW, Divergence

DATA = mm.MultimodalArrays(jax.tree.map(np.asarray, make_data()))


def course(loss, losses, scales):
    """Warnings of a run with these mean losses and smallest scales."""
    divergence = Divergence(loss)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for number, (mean_loss, scale) in enumerate(zip(losses, scales, strict=True)):
            divergence.check(50 * number, mean_loss, scale)
    return [str(warning.message) for warning in found]


@pytest.mark.parametrize(
    ("losses", "num"),
    [
        ((1800.0, 900.0, -870.0, -900.0, -850.0), 0),
        ((1800.0, 900.0, -870.0, 1700.0, 2000.0), 0),  # worse, but not by all it had improved
        ((1800.0, 900.0, -870.0, 5000.0, 4e5), 1),
        ((1800.0, 2800.0, 2900.0), 1),  # never improved
        ((-10.0, -9.0, -6.0, -3.0), 1),
        ((1800.0, 2800.0), 0),  # an early rise
        ((700.0, float("nan"), float("inf")), 0),  # another error's business
    ],
)
def test_a_loss_much_worse_than_before(losses, num):
    found = course("iwae_looser", losses, [1.0] * len(losses))
    assert len(found) == num
    assert all(message.startswith("the mean loss is") for message in found)


@pytest.mark.parametrize(
    ("loss", "remedy"),
    [
        ("dreg_looser", "'adaptive_dreg_looser'"),
        ("mixture_dreg", "'adaptive_dreg'"),
        ("stl", "iwae"),
    ],
)
def test_narrow_posteriors_under_a_noisy_estimator(loss, remedy):
    (message,) = course(loss, [3.0] * 3, [0.1, NARROW / 2, NARROW / 4])
    assert message.startswith(f"min_scale is {NARROW / 2:.2g} at step 50")
    assert remedy in message


@pytest.mark.parametrize("loss", ["iwae_looser", "adaptive_dreg_looser", "adaptive_dreg", "elbo"])
def test_quiet_estimators_may_be_narrow(loss):
    assert not course(loss, [3.0], [1e-6])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "posterior", "learning_rate", "message"),
    [
        ("dreg_looser", "normal", 1e-9, "min_scale is"),
        ("iwae_looser", "laplace_with_softmax", 1.0, "the mean loss is"),
    ],
)
def test_fit_warns(monkeypatch, loss, posterior, learning_rate, message):
    monkeypatch.setattr("mmvae_jax.training.divergence.EARLY", 0)
    model = make_model(loss=loss, prior_and_posterior_dist=posterior)
    if posterior == "normal":
        for encoder in model.encoders.values():
            encoder.log_var.bias[...] -= 16.0
    state = mm.create_train_state(model, optax.sgd(learning_rate), key=jax.random.key(0))
    with pytest.warns(mm.DivergenceWarning, match=message):
        mm.fit(state, DATA, num_steps=4, batch_size=8, log_every=2, progress=False)


@pytest.mark.slow
def test_min_scale_is_the_smallest_of_all():
    """Over examples, observed experts and axes; in steps and in evaluations."""
    model = make_model()
    mask = {name: np.arange(8) != number for number, name in enumerate(DATA.data)}
    batch = mm.Batch(DATA.data, mask)
    scales = np.asarray(model.experts(make_data()).scale)
    expected = scales[np.stack(list(mask.values()))].min()
    metrics, _ = jax.jit(mm.value_and_grad)(model, batch, jax.random.key(0))
    np.testing.assert_allclose(metrics["min_scale"], expected, rtol=1e-5)
    state = mm.create_train_state(model, optax.sgd(0.1), key=jax.random.key(0))
    found = mm.evaluate(state, batch, batch_size=3)
    np.testing.assert_allclose(found["min_scale"], expected, rtol=1e-5)
