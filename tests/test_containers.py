"""Batch and MultimodalArrays in each other's place, and the weights of examples."""

import chex
import jax
import numpy as np
import optax
import pytest
from helpers.small_model import DIMS, every_mask, make_data, make_model

import mmvae_jax as mm
from mmvae_jax.batch import as_arrays, as_batch
from mmvae_jax.data import num_examples, take

ADAM = optax.adam(1e-3)
WEIGHT = np.float32([0, 1, 0, 2, 0.5, 1, 0, 3])


@pytest.fixture(scope="module")
def model():
    return make_model()


def make_state(model):
    return mm.create_train_state(model, ADAM, key=jax.random.key(4))


def both(**fields):
    """The same examples in both containers."""
    data = jax.tree.map(np.asarray, make_data())
    return mm.Batch(data, **fields), mm.MultimodalArrays(data, **fields)


def test_conversions_keep_everything():
    batch, arrays = both(mask=every_mask(), weight=WEIGHT)
    chex.assert_trees_all_equal(as_batch(arrays), batch)
    chex.assert_trees_all_equal(as_arrays(batch), arrays)
    assert as_batch(batch) is batch
    assert all(as_arrays(arrays).data[name] is x for name, x in arrays.data.items())


def test_modalities_keep_their_order():
    data = {"z": np.zeros((3, 2)), "a": np.ones((3, 1))}
    for examples in (mm.Batch(data), mm.MultimodalArrays(data)):
        assert [*as_arrays(examples).data] == [*take(examples, np.array([1])).data] == ["z", "a"]


@pytest.mark.slow
def test_every_function_takes_either(model):
    batch, arrays = both(mask=every_mask(), weight=WEIGHT)
    functions = [
        lambda x: jax.jit(mm.loss)(model, x, jax.random.key(1)),
        lambda x: mm.train_step(make_state(model), x)[1],
        lambda x: mm.evaluate(make_state(model), x, batch_size=4),
        lambda x: (
            mm.fit(
                make_state(model), x, num_steps=2, batch_size=4, eval_data=x, progress=False
            ).metrics
        ),
        lambda x: take(x, np.array([3, 1])),
        num_examples,
    ]
    for function in functions:
        chex.assert_trees_all_equal(function(batch), function(arrays))


def test_inference_takes_either(model):
    batch, arrays = both()
    for function in (mm.encode, mm.predict, mm.reconstruct):
        chex.assert_trees_all_equal(
            function(model, batch, jax.random.key(1)), function(model, arrays, jax.random.key(1))
        )


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["dreg_looser", "iwae"])
def test_weights_are_those_of_a_mean(loss):
    """Loss and gradient are weighted means of those of single examples."""
    model = make_model(loss=loss)
    data = jax.tree.map(np.asarray, make_data())
    shape = (3, len(WEIGHT), 4)
    noise = {m: jax.random.laplace(jax.random.key(i), shape) for i, m in enumerate(DIMS)}
    value_and_grad = jax.jit(mm.value_and_grad)

    def single(b):
        one = jax.tree.map(lambda x: x[b : b + 1], data)
        metrics, grads = value_and_grad(
            model, mm.Batch(one), noise={m: x[:, b : b + 1] for m, x in noise.items()}
        )
        return {name: metrics[name] for name in ("loss", "kl", "ess", "bound/a")}, grads

    singles = [single(b) for b in range(len(WEIGHT))]
    expected = jax.tree.map(
        lambda *x: sum(w * y for w, y in zip(WEIGHT, x, strict=True)) / WEIGHT.sum(), *singles
    )
    metrics, grads = value_and_grad(model, mm.Batch(data, weight=WEIGHT), noise=noise)
    ours = {name: metrics[name] for name in expected[0]}, grads
    chex.assert_trees_all_close(ours, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.slow
def test_weight_zero_is_absence(model):
    """Examples of weight 0 change neither metrics nor gradient, as if they were missing."""
    counted = WEIGHT > 0
    batch, _ = both(weight=counted.astype(np.float32))
    absent, _ = both(mask=dict.fromkeys(DIMS, counted))
    value_and_grad = jax.jit(mm.value_and_grad)
    ours = value_and_grad(model, batch, jax.random.key(2))
    theirs = value_and_grad(model, absent, jax.random.key(2))
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_weights_all_one_are_no_weights(model):
    batch, _ = both()
    weighted, _ = both(weight=np.ones(len(WEIGHT)))
    value_and_grad = jax.jit(mm.value_and_grad)
    expected = value_and_grad(model, batch, jax.random.key(2))
    ours = value_and_grad(model, weighted, jax.random.key(2))
    chex.assert_trees_all_close(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_fit_weighs_examples(model):
    """Steps on copies of the heavy examples, against steps on weights: the same gradient."""
    data = jax.tree.map(lambda x: np.asarray(x)[:2], make_data())
    weighted = mm.MultimodalArrays(data, weight=np.float32([1, 0]))
    only = mm.MultimodalArrays(data, mask=dict.fromkeys(DIMS, np.array([True, False])))
    states = [
        mm.fit(make_state(model), x, num_steps=3, batch_size=2, progress=False).state
        for x in (weighted, only)
    ]
    chex.assert_trees_all_close(states[0].params, states[1].params, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(3, np.float32), r"weight has 3|weight has shape \(3,\)"),
        (-np.ones(8, np.float32), r"weight\[0\] is -1"),
        (np.full(8, np.nan), r"weight\[0\] is nan"),
        (np.array(["1"] * 8), r"weight is an array of <U1"),
    ],
)
def test_wrong_weights_are_named(weight, message):
    with pytest.raises(ValueError, match=message):
        num_examples(mm.MultimodalArrays(make_data(), weight=weight))


def test_wrong_weight_of_a_batch_is_named(model):
    batch, _ = both(weight=np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"batch\.weight has shape \(3,\)"):
        mm.loss(model, batch, jax.random.key(0))


def test_other_containers_are_refused():
    with pytest.raises(ValueError, match="batch is a dict"):
        as_batch({"a": np.zeros((2, 6))})
