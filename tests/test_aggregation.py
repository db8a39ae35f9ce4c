"""Products of experts and mixtures of products, under the bounds and estimators of mixtures."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx

import mmvae_jax as mm
from mmvae_jax.generative import components_of
from mmvae_jax.maths.aggregation import aggregate, component_names
from mmvae_jax.maths.weights import Experts
from mmvae_jax.metrics.generation import generations
from mmvae_jax.samplers.aggregate import aggregate_posterior

DIMS = {"a": (3,), "b": (2,), "c": (2,)}


def make_model(aggregation, **fields):
    config = mm.MMVAEConfig(
        input_dims=DIMS,
        latent_dim=2,
        K=4,
        prior_and_posterior_dist="normal",
        aggregation=aggregation,
        **fields,
    )
    return mm.MMVAE(config, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def batch():
    keys = jax.random.split(jax.random.key(0), 3)
    data = {m: jax.random.normal(k, (4, *DIMS[m])) for m, k in zip(DIMS, keys, strict=True)}
    mask = {"a": [1, 1, 0, 0], "b": [1, 0, 1, 0], "c": [1, 1, 1, 0]}
    return mm.Batch(data, {m: np.array(seen, bool) for m, seen in mask.items()})


def test_products_of_densities():
    """Each component is the normalised product of its members' densities."""
    rng = np.random.default_rng(0)
    loc, scale = rng.normal(size=(3, 1, 1)), rng.uniform(0.5, 2, (3, 1, 1))
    experts, grid = Experts(jnp.array(loc), jnp.array(scale)), np.linspace(-12, 12, 4001)
    available, prior_scale = jnp.array([[True], [False], [True]]), jnp.array([1.5])
    density = scipy.stats.norm.pdf(grid, loc[:, 0], scale[:, 0])
    prior = scipy.stats.norm.pdf(grid, 0, 1.5)
    for kind, products in {
        "poe": {"joint": density[0] * density[2] * prior},
        "mopoe": {"a": density[0], "c": density[2], "a+c": density[0] * density[2]},
    }.items():
        (locs, scales), found = aggregate(kind, experts, available, prior_scale)
        names = component_names(kind, tuple(DIMS))
        assert [n for n, there in zip(names, found[:, 0], strict=True) if there] == [*products]
        for name, product in products.items():
            c = names.index(name)
            expected = product / np.trapezoid(product, grid)
            ours = scipy.stats.norm.pdf(grid, locs[c, 0], scales[c, 0])
            np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["poe", "mopoe"])
def test_likelihood_does_not_depend_on_the_aggregation(batch, aggregation):
    """The same decoders and prior have the same p(X), whatever q(z|X) it is sampled from."""
    model, moe = make_model(aggregation), make_model("moe")
    nlls = [mm.compute_joint_nll(m, batch, jax.random.key(1), K=5000) for m in (model, moe)]
    np.testing.assert_allclose(*nlls, atol=0.1)
    assert nlls[0][3] == 0  # nothing observed


@pytest.mark.parametrize(
    ("aggregation", "loss"),
    [
        ("poe", "mixture_dreg"),
        pytest.param("poe", "adaptive_dreg_looser", marks=pytest.mark.slow),
        pytest.param("mopoe", "mixture_dreg", marks=pytest.mark.slow),
        pytest.param("mopoe", "adaptive_dreg_looser", marks=pytest.mark.slow),
    ],
)
def test_estimators_are_unbiased(batch, aggregation, loss):
    """The mean gradient is that of reparam, within 4 standard errors."""
    reparam = "iwae" + loss.removeprefix("mixture_dreg").removeprefix("adaptive_dreg")
    means, errors = [], []
    for name in (loss, reparam):
        keys = jax.random.split(jax.random.key(2), 3000)
        model = make_model(aggregation, loss=name)
        graphdef, state = nnx.split(model)

        def gradient(key, graphdef=graphdef, state=state):
            grads = mm.value_and_grad(nnx.merge(graphdef, state), batch, key)[1]
            heads = [grads["encoders"][m]["loc"]["bias"][...] for m in DIMS]
            return jnp.concatenate([*heads, grads["prior_log_var"][...]])

        found = np.asarray(jax.jit(lambda ks, g=gradient: jax.lax.map(g, ks, batch_size=500))(keys))
        means.append(found.mean(0))
        errors.append(found.std(0) / len(found) ** 0.5)
    assert np.all(np.abs(means[0] - means[1]) < 4 * np.hypot(*errors))


@pytest.mark.parametrize("aggregation", ["poe", "mopoe"])
def test_missing_data_change_no_bit(batch, aggregation):
    model = make_model(aggregation)
    value_and_grad = jax.jit(mm.value_and_grad)
    spoilt = {m: jnp.where(batch.mask[m][:, None], x, jnp.nan) for m, x in batch.data.items()}
    expected = value_and_grad(model, batch, jax.random.key(3))
    found = value_and_grad(model, mm.Batch(spoilt, batch.mask), jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, expected, found)


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["poe", "mopoe"])
def test_sparse_equals_dense(batch, aggregation):
    model = make_model(aggregation)
    kinds = [mm.Backward(kind, tolerance=0.0, chunk=5) for kind in ("dense", "sparse")]
    value_and_grad = jax.jit(mm.value_and_grad, static_argnames="backward")
    grads = [value_and_grad(model, batch, jax.random.key(4), backward=kind)[1] for kind in kinds]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *grads)


@pytest.mark.slow
def test_encode_and_metrics(batch):
    """A mean of encode is that of the components; metrics are named after these."""
    model = make_model("mopoe")
    loc, scale = model.experts(dict(batch.data))
    precision = 1 / scale[:, 0] ** 2
    means = []
    for size in (1, 2, 3):
        for subset in itertools.combinations(range(3), size):
            chosen = np.array(subset)
            means.append((precision * loc[:, 0])[chosen].sum(0) / precision[chosen].sum(0))
    z = mm.encode(model, mm.Batch(batch.data), None, return_mean=True)
    np.testing.assert_allclose(z[0, 0], np.mean(means, axis=0), rtol=1e-4)
    metrics = mm.value_and_grad(model, batch, jax.random.key(0))[0]
    assert {"bound/a", "bound/a+b", "bound/a+b+c", "log_likelihood/a"} <= set(metrics)
    assert mm.reconstruct(make_model("poe"), batch, jax.random.key(0))["a"]["b"].shape == (4, 1, 2)


@pytest.mark.parametrize("aggregation", ["poe", "mopoe"])
def test_metrics_and_samplers_draw_from_the_components(batch, aggregation):
    """Latents of generations and of the aggregate posterior are those of encode."""
    model, complete = make_model(aggregation), mm.Batch(batch.data)
    for m in DIMS:  # narrow: draws are close to the locations of the components
        bias = model.encoders[m].log_var.bias
        bias.set_value(jnp.full_like(bias[...], -30.0))
    posterior = aggregate_posterior(model, complete)
    components, available = components_of(
        model, model.experts(dict(batch.data)), jnp.ones((3, 4), bool)
    )
    np.testing.assert_allclose(posterior.experts.loc, components.loc, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(posterior.mask, available)
    found = next(iter(generations(model, complete, jax.random.key(5), givens=[tuple(DIMS)])))
    expected = mm.decode(model, components.loc)["a"]
    distance = np.abs(found.data["a"][None, :4] - expected).max(-1).min(0)
    assert distance.max() < 1e-3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"aggregation": "product"}, "aggregation is 'product'"),
        ({"prior_and_posterior_dist": "laplace_with_softmax"}, "no closed form"),
        ({"modalities_specific_dim": 2}, "private latents"),
        ({"number_of_clusters": 3}, "clusters"),
        ({"experts_per_step": 2}, "experts_per_step"),
    ],
)
def test_errors(fields, message):
    given = {"prior_and_posterior_dist": "normal", "aggregation": "poe"} | fields
    with pytest.raises(ValueError, match=message):
        mm.MMVAEConfig(input_dims=DIMS, **given)
