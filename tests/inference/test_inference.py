"""Encoding, decoding and generation: shapes, distributions, masks, composition with JAX."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.separate_experts import (
    CONFIG,
    DIMS,
    MASK,
    NAMES,
    NUM_EXAMPLES,
    complete_batch,
    key,
    locations,
    make_batch,
    make_model,
    source,
)
from scipy.special import expit, softmax
from scipy.stats import chisquare

import mmvae_jax as mm
from mmvae_jax.maths.distributions import FAMILIES

NUM_SIGMA = 4

# Shapes.


@pytest.mark.parametrize("num_examples", [1, 6])
@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("return_mean", [False, True])
def test_shapes(num_examples, N, return_mean):
    model, batch = make_model(), complete_batch(num_examples)
    options = {"N": N, "return_mean": return_mean}
    z = mm.encode(model, batch, key(), **options)
    assert z.shape == (num_examples, N, 2)
    flat = mm.encode(model, batch, key(), **options, flatten=True)
    assert flat.shape == (num_examples * N, 2)
    np.testing.assert_array_equal(flat, z.reshape(-1, 2))  # Draws of an example are neighbours.
    for latents, lead in ((z, (num_examples, N)), (flat, (num_examples * N,)), (z[0, 0], ())):
        shapes = {m: x.shape for m, x in mm.decode(model, latents).items()}
        assert shapes == {m: (*lead, *dim) for m, dim in DIMS.items()}
    predicted = mm.predict(model, batch, key(), gen_mod=("b", "d"), **options)
    assert {m: x.shape for m, x in predicted.items()} == {
        m: (num_examples, N, *DIMS[m]) for m in ("b", "d")
    }
    predicted = mm.predict(model, batch, key(), gen_mod="c", flatten=True, **options)
    assert {m: x.shape for m, x in predicted.items()} == {"c": (num_examples * N, *DIMS["c"])}
    grid = mm.reconstruct(model, batch, key(), **options)
    assert tuple(grid) == NAMES
    for row in grid.values():
        assert {m: x.shape for m, x in row.items()} == {
            m: (num_examples, N, *dim) for m, dim in DIMS.items()
        }


@pytest.mark.parametrize("sample", [False, True])
def test_shapes_of_generation(sample):
    model = make_model()
    assert mm.generate_from_prior(model, key(), 5).shape == (5, 2)
    shapes = {m: x.shape for m, x in mm.generate(model, key(), 5, sample=sample).items()}
    assert shapes == {m: (5, *dim) for m, dim in DIMS.items()}


def test_a_modality_is_decoded_alike_in_any_company():
    """Alone, among others, named in another order: the same values and the same draws."""
    model, z = make_model(), jax.random.normal(key(), (3, 2))
    for sample in (False, True):
        together = mm.decode(model, z, key=key(1), sample=sample)
        for names in ("b", ["d"], ["d", "a"]):
            some = mm.decode(model, z, modalities=names, key=key(1), sample=sample)
            assert some.keys() == {*names}
            chex.assert_trees_all_close(some, {m: together[m] for m in some}, rtol=1e-6)


# Experts.


@pytest.mark.parametrize("cond_mod", ["all", "d", ("a", "d"), ("a", "b", "c")])
def test_draws_are_uniform_over_the_available_experts(cond_mod):
    """Example by example; and neither draws nor examples share their choice."""
    model = make_model()
    names = NAMES if cond_mod == "all" else cond_mod
    available = MASK & np.array([[m in names] for m in NAMES])
    rows = available.any(0)
    batch = jax.tree.map(lambda a: a[rows], make_batch())
    picked = source(mm.encode(model, batch, key(1), cond_mod=cond_mod, N=2000))
    counts = (picked[None] == np.arange(4)[:, None, None]).sum(2)
    assert np.all(counts.sum(0) == 2000)
    for count, allowed in zip(counts.T, available[:, rows].T, strict=True):
        assert np.all(count[~allowed] == 0)
        if allowed.sum() > 1:
            assert chisquare(count[allowed]).pvalue > 1e-4


def test_choices_are_independent():
    """Of every pair of examples, and of every draw and the next one: a table of 4 x 4 counts."""
    picked = source(mm.encode(make_model(), complete_batch(), key(2), N=4000))
    pairs = [(picked[i], picked[j]) for i in range(NUM_EXAMPLES) for j in range(i)]
    pairs += [(row[:-1], row[1:]) for row in picked]
    for first, second in pairs:
        table = np.bincount(4 * first + second, minlength=16)
        assert chisquare(table).pvalue > 1e-4


def test_draws_around_the_location_are_independent():
    """Standardised noise: mean 0, variance 1, no correlation between examples, draws or axes."""
    model, batch, num_draws = make_model(), complete_batch(), 4000
    z = np.asarray(mm.encode(model, batch, key(3), cond_mod="b", N=num_draws), np.float64)
    noise = (z - locations(model, batch)[1][:, None]) / np.exp(-3)
    columns = noise.transpose(1, 0, 2).reshape(num_draws, -1)
    columns = np.concatenate([columns, np.roll(columns, 1, axis=0)], axis=1)
    error = NUM_SIGMA / np.sqrt(num_draws)
    np.testing.assert_allclose(columns.mean(0), 0, atol=error)
    np.testing.assert_allclose(columns.var(0), 1, atol=error * np.sqrt(2))
    np.testing.assert_allclose(np.corrcoef(columns.T) - np.eye(columns.shape[1]), 0, atol=error)


@pytest.mark.parametrize("cond_mod", ["all", ("a", "c", "d")])
def test_mean_is_the_average_of_the_available_locations(cond_mod):
    model, batch = make_model(), make_batch()
    available = MASK & np.array([[cond_mod == "all" or m in cond_mod] for m in NAMES])
    loc = locations(model, batch)
    z = mm.encode(model, batch, None, cond_mod=cond_mod, N=2, return_mean=True)
    for b, allowed in enumerate(available.T):
        expected = np.broadcast_to(loc[allowed, b].mean(0), (2, 2))
        np.testing.assert_allclose(z[b], expected, rtol=1e-6)


# Masks and fillers.


def test_fillers_change_no_bit():
    """NaN, infinity and other values in masked places; also for a modality left out altogether."""
    model, batch = make_model(), make_batch()
    filled = [
        mm.Batch({m: np.where(np.isnan(x), filler, x) for m, x in batch.data.items()}, batch.mask)
        for filler in np.float32([0, np.inf, 1e30])
    ]
    unseen = mm.Batch(batch.data, {**batch.mask, "c": np.zeros(NUM_EXAMPLES, bool)})
    left_out = mm.Batch(
        *({m: x for m, x in part.items() if m != "c"} for part in (batch.data, batch.mask))
    )
    for function in (mm.encode, mm.predict, mm.reconstruct):
        expected = function(model, batch, key(), N=2)
        for other in filled:
            chex.assert_trees_all_equal(function(model, other, key(), N=2), expected)
        chex.assert_trees_all_equal(
            function(model, left_out, key(), N=2), function(model, unseen, key(), N=2)
        )


def test_reconstructions_from_what_is_missing_are_nan():
    grid = mm.reconstruct(make_model(), make_batch(), key())
    for seen, row in zip(MASK, grid.values(), strict=True):
        for x in row.values():
            undefined = np.isnan(x).reshape(NUM_EXAMPLES, -1)
            np.testing.assert_array_equal(undefined.all(1), ~seen)
            np.testing.assert_array_equal(undefined.any(1), ~seen)


def test_nothing_to_condition_on_is_nan_inside_jit():
    model, batch = make_model(), make_batch()
    for return_mean in (False, True):
        encode = jax.jit(mm.encode, static_argnames=("cond_mod", "return_mean"))
        z = encode(model, batch, key(), cond_mod=("a",), return_mean=return_mean)
        np.testing.assert_array_equal(np.isnan(z).all((1, 2)), ~MASK[0])
        np.testing.assert_array_equal(np.isnan(z).any((1, 2)), ~MASK[0])


def test_integer_classes_are_their_one_hot_vectors():
    model, batch = make_model(), complete_batch()
    classes = np.arange(2 * NUM_EXAMPLES).reshape(NUM_EXAMPLES, 2) % 4
    one_hot = mm.Batch({**batch.data, "c": np.eye(4, dtype=np.float32)[classes]})
    integers = mm.Batch({**batch.data, "c": classes})
    chex.assert_trees_all_equal(
        mm.encode(model, integers, key(), cond_mod="c"),
        mm.encode(model, one_hot, key(), cond_mod="c"),
    )


# How the functions belong together.


def test_predict_is_decode_of_encode():
    """On the mixture's mean, to the bit; on draws, they come from the experts allowed."""
    model, batch = make_model(), make_batch()
    z = mm.encode(model, batch, None, N=2, return_mean=True)
    chex.assert_trees_all_equal(
        mm.predict(model, batch, None, N=2, return_mean=True), mm.decode(model, z)
    )
    encode_key, _ = jax.random.split(key(7))
    z = mm.encode(model, batch, encode_key, cond_mod=("a", "b", "d"), N=2, flatten=True)
    chex.assert_trees_all_equal(
        mm.predict(
            model,
            batch,
            key(7),
            cond_mod=("a", "b", "d"),
            gen_mod=("a", "c"),
            N=2,
            flatten=True,
        ),
        mm.decode(model, z, modalities=("a", "c")),
    )


def test_reconstruct_agrees_with_predict():
    """On means to rounding; draws have the same mean and variance."""
    model, batch, num_draws = make_model(), complete_batch(2), 4000
    grid = mm.reconstruct(model, batch, None, return_mean=True)
    drawn = mm.reconstruct(model, batch, key(1), N=num_draws)
    for given in NAMES:
        mean = mm.predict(model, batch, None, cond_mod=given, return_mean=True)
        chex.assert_trees_all_close(grid[given], mean, rtol=1e-5)
        draws = mm.predict(model, batch, key(2), cond_mod=given, N=num_draws)
        for generated in NAMES:
            one, two = np.asarray(drawn[given][generated]), np.asarray(draws[generated])
            error = NUM_SIGMA * np.sqrt((one.var(1) + two.var(1)) / num_draws)
            assert np.all(np.abs(one.mean(1) - two.mean(1)) <= error)
            np.testing.assert_allclose(
                one.var(1), two.var(1), rtol=NUM_SIGMA * np.sqrt(4 / num_draws)
            )


def test_decode_takes_latents_one_by_one():
    """Any leading axes: decoding is a map over them."""
    model, z = make_model(), jax.random.normal(key(), (2, 3, 2))
    together = mm.decode(model, z)
    for index in np.ndindex(2, 3):
        alone = mm.decode(model, z[index])
        chex.assert_trees_all_close(alone, {m: x[index] for m, x in together.items()}, rtol=1e-5)


def test_generate_decodes_draws_from_the_prior():
    model = make_model()
    prior_key, _ = jax.random.split(key(5))
    z = mm.generate_from_prior(model, prior_key, 4)
    chex.assert_trees_all_equal(mm.generate(model, key(5), 4), mm.decode(model, z))


# Distributions.


@pytest.mark.parametrize("family", FAMILIES)
def test_prior_draws_have_the_moments_of_pz_params(family):
    """Laplace draws of scale 1 have the even moments 2, 24 and 40320; normal ones 1, 3 and 105."""
    model = make_model(CONFIG.replace(prior_and_posterior_dist=family))
    model.prior_log_var.set_value(jnp.array([0.5, -0.7]))
    loc, scale = map(np.asarray, model.pz_params)
    num_draws = 20_000
    z = np.asarray(mm.generate_from_prior(model, key(), num_draws), np.float64)
    moments = (2, 24, 40320) if family == "laplace_with_softmax" else (1, 3, 105)
    second, fourth, eighth = moments
    square = np.square((z - loc) / scale)
    error = NUM_SIGMA / np.sqrt(num_draws)
    np.testing.assert_allclose(((z - loc) / scale).mean(0), 0, atol=error * np.sqrt(second))
    np.testing.assert_allclose(square.mean(0), second, atol=error * np.sqrt(fourth - second**2))
    fourth_error = error * np.sqrt(eighth - fourth**2)
    np.testing.assert_allclose(np.square(square).mean(0), fourth, atol=fourth_error)
    assert np.abs(np.corrcoef(z.T)[0, 1]) < error


def test_samples_follow_the_likelihoods():
    """Moments of normal and Laplace, frequencies of Bernoulli and one-hot categorical draws."""
    model, num_draws = make_model(), 20_000
    z = jnp.array([[2.0, -1.0]])
    says = {m: np.asarray(x, np.float64)[0] for m, x in mm.decode(model, z).items()}
    many = jnp.broadcast_to(z, (num_draws, 2))
    drawn = mm.decode(model, many, key=key(4), sample=True)
    drawn = {m: np.asarray(x, np.float64) for m, x in drawn.items()}
    error = NUM_SIGMA / np.sqrt(num_draws)

    np.testing.assert_allclose(drawn["a"].mean(0), says["a"], atol=error * 0.5)
    np.testing.assert_allclose(drawn["a"].var(0), 0.25, atol=error * np.sqrt(2) * 0.25)
    np.testing.assert_allclose(drawn["d"].mean(0), says["d"], atol=error * np.sqrt(8))
    np.testing.assert_allclose(drawn["d"].var(0), 8, atol=error * np.sqrt(24 - 4) * 4)
    for m in ("a", "d"):
        assert np.abs(np.corrcoef(drawn[m].T) - np.eye(DIMS[m][0])).max() < error

    assert set(np.unique(drawn["b"])) == {0, 1}
    np.testing.assert_allclose(drawn["b"].mean(0), expit(says["b"]), atol=error / 2)
    assert set(np.unique(drawn["c"])) == {0, 1}
    np.testing.assert_array_equal(drawn["c"].sum(-1), 1)
    np.testing.assert_allclose(drawn["c"].mean(0), softmax(says["c"], -1), atol=error / 2)


@pytest.mark.slow
def test_samples_of_predictions_are_around_them():
    """`sample` through predict, reconstruct and generate: their decoded mean plus noise."""
    model, batch = make_model(), complete_batch(2)
    for given, row in mm.reconstruct(model, batch, key(), N=3000, sample=True).items():
        plain = mm.predict(model, batch, None, cond_mod=given, return_mean=True)["a"]
        error = NUM_SIGMA * np.std(row["a"], 1) / np.sqrt(3000)
        assert np.all(np.abs(np.mean(row["a"], 1) - plain[:, 0]) < error)
        np.testing.assert_allclose(np.std(row["a"], 1), 0.5, rtol=0.1)
    sampled = mm.predict(
        model, batch, key(), cond_mod="b", gen_mod="a", N=3000, return_mean=True, sample=True
    )
    np.testing.assert_allclose(np.std(sampled["a"], 1), 0.5, rtol=0.1)


# Purity and composition.

CALLS = {
    "encode": lambda model, batch, key: mm.encode(model, batch, key, N=2),
    "decode": lambda model, batch, key: mm.decode(
        model, jnp.asarray(batch.data["a"]), key=key, sample=True
    ),
    "predict": lambda model, batch, key: mm.predict(model, batch, key, N=2, sample=True),
    "reconstruct": lambda model, batch, key: mm.reconstruct(model, batch, key, N=2, sample=True),
    "generate": lambda model, batch, key: mm.generate(model, key, 2, sample=True),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@each_call
def test_pure(call):
    """One key, one answer, another key another; the model, its random streams too, is unchanged."""
    model, batch = make_model(), complete_batch()
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey))))
    first, again, other = (jax.device_get(call(model, batch, key(s))) for s in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    assert any((x != y).any() for x, y in zip(*map(jax.tree.leaves, (first, other)), strict=True))
    after = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey))))
    assert any("count" in str(path) for path, _ in jax.tree.leaves_with_path(before))
    chex.assert_trees_all_equal(after, before)
    assert model.encoders["a"].dropout.deterministic is False


@each_call
def test_random_layers_are_off(call):
    """A model in training mode answers like one in evaluation mode."""
    model, batch = make_model(), complete_batch()
    training = call(model, batch, key())
    model.eval()
    chex.assert_trees_all_equal(training, call(model, batch, key()))


@each_call
def test_jit_equals_eager(call):
    """Draws from the same key are the same, but for the last bits of what is decoded."""
    model, batch = make_model(), complete_batch()
    plain = call(model, batch, key())
    chex.assert_trees_all_close(jax.jit(call)(model, batch, key()), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_without_jit():
    model, batch = make_model(), complete_batch()
    plain = mm.encode(model, batch, key(), N=2)
    with jax.disable_jit():
        chex.assert_trees_all_close(mm.encode(model, batch, key(), N=2), plain, rtol=1e-5)


@pytest.mark.parametrize("call", [CALLS["predict"], CALLS["reconstruct"]], ids=["predict", "grid"])
def test_vmap_over_models(call):
    """A stack of models equals one by one."""
    batch = complete_batch()
    graphdef, params, rest = nnx.split(make_model(), nnx.Param, ...)
    both = [params, jax.tree.map(lambda a: 1.1 * a, params)]
    stack = jax.tree.map(lambda *a: jnp.stack(a), *both)
    stacked = jax.vmap(lambda params: call(nnx.merge(graphdef, params, rest), batch, key()))(stack)
    single = [call(nnx.merge(graphdef, params, rest), batch, key()) for params in both]
    chex.assert_trees_all_close(
        stacked, jax.tree.map(lambda *a: jnp.stack(a), *single), rtol=1e-5, atol=1e-6
    )


def test_gradients_flow_from_predictions_into_both_networks():
    model, batch = make_model(), make_batch()

    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def size(params):
        model = nnx.merge(graphdef, params, rest)
        return jnp.square(mm.predict(model, batch, key(), gen_mod="b")["b"]).mean()

    grads = jax.grad(size)(params)
    expert, decoder = grads.encoders["d"].linear.kernel, grads.decoders["b"].linear.kernel
    for grad in (expert[...], decoder[...]):
        assert np.isfinite(grad).all()
        assert np.abs(grad).max() > 0
