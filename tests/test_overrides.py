"""Numbers of the objective as inputs: the values of a config that says them, compiled once."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.separate_experts import key
from helpers.small_model import DIMS, every_mask, make_data, make_model

import mmvae_jax as mm
from mmvae_jax.data import batches
from mmvae_jax.overrides import numbers

value_and_grad = jax.jit(mm.value_and_grad, static_argnames="backward")

ADAM = optax.adam(1e-2)
FACTORS = {"a": 2.0, "b": 0.5, "c": 1.25}


@pytest.fixture
def batch():
    return mm.Batch(data=make_data(), mask=every_mask())


def make_state(model, tx=ADAM, mesh=None):
    return mm.create_train_state(model, tx, key=key(), mesh=mesh)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize(
    "loss", ["mixture_dreg_looser", pytest.param("dreg", marks=pytest.mark.slow)]
)
def test_overriding_is_having_another_config(batch, loss, kind):
    overrides = mm.Overrides(
        beta=0.3,
        rescale_factors={"b": 0.5, "a": 2.0, "c": 1.25},
        decoder_dist_params={"a": {"scale": 0.4}},
    )
    config = {
        "beta": 0.3,
        "uses_likelihood_rescaling": True,
        "rescale_factors": FACTORS,
        "decoder_dist_params": {"a": {"scale": 0.4}},
    }
    backward = mm.Backward(kind, tolerance=0.0, chunk=4) if kind == "sparse" else mm.Backward(kind)

    model, other = make_model(loss=loss), make_model(loss=loss, **config)
    found = value_and_grad(model, batch, key(), overrides=overrides, backward=backward)
    expected = value_and_grad(other, batch, key(), backward=backward)
    chex.assert_trees_all_close(found, expected, rtol=2e-5, atol=2e-5)
    usual = mm.Overrides(beta=1.0, decoder_dist_params={"a": {"scale": 1.0}})
    loss_usual = jax.jit(mm.loss)(model, batch, key(), overrides=usual)
    assert abs(loss_usual - expected[0]["loss"]) > 1


@pytest.mark.slow
def test_what_is_left_out_is_as_in_the_config(batch):
    rescaled = make_model(uses_likelihood_rescaling=True, rescale_factors=FACTORS, beta=0.7)
    expected = make_model(
        uses_likelihood_rescaling=True, rescale_factors={**FACTORS, "c": 3.0}, beta=0.7
    )
    loss = jax.jit(mm.loss)
    found = loss(rescaled, batch, key(), overrides=mm.Overrides(rescale_factors={"c": 3.0}))
    np.testing.assert_allclose(found, loss(expected, batch, key()), rtol=1e-6)


@pytest.mark.slow
def test_other_values_do_not_compile_again(batch):
    """Nor does another learning rate, which is a number of the optimizer's state."""
    state = make_state(make_model(), mm.make_optimizer(1e-2))
    traces = 0

    @jax.jit
    def step(state, batch, overrides):
        nonlocal traces
        traces += 1
        return mm.train_step(state, batch, overrides=overrides)

    losses = {}
    for beta, scale, rate in ((0.1, 1.0, 1e-2), (2.0, 1.0, 1e-2), (0.1, 0.2, 1e-3)):
        start = state.replace(opt_state=optax.tree.set(state.opt_state, learning_rate=rate))
        overrides = mm.Overrides(beta=beta, decoder_dist_params={"a": {"scale": scale}})
        _, metrics = step(start, batch, overrides)
        losses[beta, scale] = float(metrics["loss"])
        np.testing.assert_allclose(metrics["learning_rate"], rate, rtol=1e-6)
    assert traces == 1
    assert len(set(losses.values())) == 3


@pytest.mark.slow
def test_a_scale_is_trained_by_its_gradient(batch):
    """Under `iwae` the gradient is that of the value, which differences of the value give, too."""
    model = make_model(loss="iwae")

    @partial(jax.jit, static_argnames="backward")
    def loss(scale, backward=None):
        overrides = mm.Overrides(decoder_dist_params={"a": {"scale": scale}})
        options = {} if backward is None else {"backward": backward}
        return mm.loss(model, batch, key(), overrides=overrides, **options)

    gradient = jax.jit(jax.grad(loss))(0.8)
    step = 1e-2
    difference = (loss(0.8 + step) - loss(0.8 - step)) / (2 * step)
    np.testing.assert_allclose(gradient, difference, rtol=2e-3)
    sparse = mm.Backward("sparse", tolerance=0.0, chunk=5)
    np.testing.assert_allclose(jax.grad(loss)(0.8, sparse), gradient, rtol=1e-5)

    @jax.jit
    @jax.grad
    def of_beta(beta):
        return mm.loss(model, batch, key(), overrides=mm.Overrides(beta=beta))

    assert of_beta(1.0) == 0  # as documented: a constant to differentiation


@pytest.mark.slow
def test_fit_follows_a_schedule(batch):
    """Whatever the number of steps in a call, each has the numbers of its own."""
    data = mm.MultimodalArrays({m: np.asarray(x) for m, x in make_data().items()})

    def warm_up(step):
        return mm.Overrides(beta=0.1 + 0.2 * step)

    def train(**options):
        options = {"num_steps": 4, "batch_size": 4, "progress": False, **options}
        return mm.fit(make_state(make_model()), data, **options).state.params

    one_by_one = train(overrides=warm_up)
    chex.assert_trees_all_close(
        train(overrides=warm_up, steps_per_call=2), one_by_one, rtol=1e-5, atol=1e-6
    )
    expected = make_state(make_model())
    for step, arrays in enumerate(batches(data, 4, seed=0, num_steps=4)):
        expected, _ = mm.train_step(
            expected, mm.Batch(dict(arrays.data)), overrides=mm.Overrides(beta=0.1 + 0.2 * step)
        )
    chex.assert_trees_all_close(one_by_one, expected.params, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("four_devices")
def test_every_device_has_them(batch):
    overrides = mm.Overrides(beta=0.3, decoder_dist_params={"a": {"scale": 0.4}})
    mesh = mm.make_mesh(2, 1, devices=jax.devices()[:2])
    on_mesh = make_state(make_model(), mesh=mesh)
    sharded = mm.shard_batch(batch, mesh)
    configured = make_state(make_model(beta=0.3, decoder_dist_params={"a": {"scale": 0.4}}))
    expected = mm.eval_step(configured, batch)
    for state, given in ((on_mesh, sharded), (make_state(make_model()), batch)):
        found = mm.eval_step(state, given, overrides=overrides)
        chex.assert_trees_all_close(found, expected, rtol=1e-5)
    on_mesh, found = mm.train_step(on_mesh, sharded, overrides=overrides)
    _, expected = mm.train_step(configured, batch)
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (mm.Overrides(beta=np.ones(3)), r"overrides.beta has shape \(3,\): give one number"),
        (
            mm.Overrides(rescale_factors={"x": 1.0}),
            r"overrides.rescale_factors has the unknown modalities \['x'\]: known are "
            rf"\[{', '.join(map(repr, DIMS))}\]",
        ),
        (
            mm.Overrides(decoder_dist_params={"a": 0.5}),
            r"overrides.decoder_dist_params\['a'\] is 0.5: give a dict such as {'scale': 0.75}",
        ),
        (
            mm.Overrides(decoder_dist_params={"b": {"scale": 0.5}}),
            "sets 'scale', which the bernoulli likelihood does not have: it takes no parameters",
        ),
        (
            mm.Overrides(decoder_dist_params={"a": {"scale": jnp.ones(6)}}),
            r"overrides.decoder_dist_params\['a'\]\['scale'\] has shape \(6,\): give one number",
        ),
    ],
)
def test_wrong_overrides(batch, overrides, message):
    with pytest.raises(ValueError, match=message):
        mm.loss(make_model(), batch, key(), overrides=overrides)


def test_a_dict_is_no_overrides():
    with pytest.raises(ValueError, match=r"overrides is a dict: give mm.Overrides\(beta=...\), or"):
        numbers(make_model().config, {"beta": 1.0}, jnp.float32)
