"""Missing entries of observed rows: densities, gradients, likelihoods, masks and mistakes."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.linear_gaussian import DIMS, linear_gaussian
from helpers.private_gaussian import private_gaussian
from helpers.small_model import make_data, make_model
from scipy.stats import multivariate_normal, norm

import mmvae_jax as mm
from mmvae_jax.batch import observe
from mmvae_jax.maths.likelihoods import LIKELIHOODS, Incomplete, log_likelihood

value_and_grad = jax.jit(mm.value_and_grad, static_argnames="backward")

#: Settings of models by name.
MODELS = {
    "mmvae": {},
    "cmvae": {"modalities_specific_dim": {"a": 2, "b": 0, "c": 3}, "number_of_clusters": 3},
    "poe": {"aggregation": "poe", "prior_and_posterior_dist": "normal"},
    "mopoe": {"aggregation": "mopoe", "prior_and_posterior_dist": "normal"},
}


def entry_masks(data, seed=0):
    """Masks of the data's shape, in which some rows are missing throughout."""
    rng = np.random.default_rng(seed)
    masks = {name: rng.random(x.shape) < 0.7 for name, x in data.items()}
    next(iter(masks.values()))[0] = False
    return masks


def with_garbage(data, masks, garbage):
    return {name: np.where(masks[name], x, garbage).astype(x.dtype) for name, x in data.items()}


def test_the_density_is_that_of_the_observed_entries():
    decoded, x = np.random.default_rng(0).normal(size=(2, 4, 3))
    observed = np.random.default_rng(1).random((4, 3)) < 0.5
    log_p = log_likelihood(LIKELIHOODS["normal"], {"scale": 0.7})(decoded, Incomplete(x, observed))
    expected = np.where(observed, norm.logpdf(x, decoded, 0.7), 0).sum(1)
    np.testing.assert_allclose(log_p, expected, rtol=1e-5)


@pytest.mark.parametrize("as_one_hot", [False, True])
def test_missing_classes_drop_out(as_one_hot):
    config = mm.MMVAEConfig(
        input_dims={"word": (3, 4)}, decoders_dist={"word": "categorical"}, latent_dim=2
    )
    model = mm.MMVAE(config, rngs=nnx.Rngs(0))
    classes, mask = np.array([[0, 3, 1]]), np.array([[True, False, True]])
    word = np.eye(4, dtype=np.float32)[classes] if as_one_hot else classes
    observed = observe(config, mm.Batch({"word": word}, {"word": mask}))
    logits = np.random.default_rng(0).normal(size=(1, 3, 4))
    log_p = log_likelihood(LIKELIHOODS["categorical"], {})(logits, observed.data["word"])
    each = jax.nn.log_softmax(logits)[0, [0, 2], [0, 1]]
    np.testing.assert_allclose(log_p, [each.sum()], rtol=1e-5)
    zeroed = np.eye(4, dtype=np.float32)[classes] * mask[..., None]
    expected = model.encoders["word"](jnp.asarray(zeroed))
    np.testing.assert_allclose(model.experts(observed.data).loc[0], expected[0], rtol=1e-6)
    if as_one_hot:  # a mask with the last axis, too
        whole = np.broadcast_to(mask[..., None], word.shape)
        again = observe(config, mm.Batch({"word": word}, {"word": whole}))
        chex.assert_trees_all_equal(again.data, observed.data)


@pytest.mark.parametrize(
    ("model", "backward"),
    [
        ("mmvae", "dense"),
        ("cmvae", "dense"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("mmvae", "sparse"),
                ("cmvae", "sparse"),
                ("poe", "dense"),
                ("mopoe", "dense"),
            ]
        ),
    ],
)
def test_missing_entries_change_no_bit(model, backward):
    """Not of the loss, the gradient, the latents, or a likelihood."""
    model = make_model(**MODELS[model])
    data = {name: np.asarray(x) for name, x in make_data().items()}
    masks = entry_masks(data)
    masks["c"] = masks["c"].all(-1)  # one-hot vectors are entries

    def results(batch):
        step, likelihood = jax.random.split(jax.random.key(0))
        return (
            value_and_grad(model, batch, step, backward=mm.Backward(backward)),
            mm.encode(model, mm.Batch({"b": batch.data["b"]}, {"b": masks["b"]}), None,
                      return_mean=True),
            mm.compute_joint_nll(model, batch, likelihood, K=20),
        )  # fmt: skip

    masks_of = {"c": masks["c"][..., None]}
    some, other = (
        results(mm.Batch(with_garbage(data, masks | masks_of, garbage), masks))
        for garbage in (np.nan, 1e30)
    )
    chex.assert_trees_all_equal(some, other)
    chex.assert_tree_all_finite(some[0])


@pytest.mark.slow
def test_masks_of_entries_agree_with_masks_of_rows():
    """Where they say the same, and complete entries with no mask at all."""
    model, data = make_model(), {name: np.asarray(x) for name, x in make_data().items()}
    size = len(data["a"])
    rows = {name: np.arange(size) % 3 != place for place, name in enumerate(data)}
    spread = {
        name: np.broadcast_to(rows[name].reshape(-1, *[1] * (x.ndim - 1)), x.shape)
        for name, x in data.items()
    }
    ours, expected = (
        value_and_grad(model, mm.Batch(data, mask), jax.random.key(0)) for mask in (spread, rows)
    )
    chex.assert_trees_all_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_missing_entries_of_a_mixed_table():
    """One entry for each number, and one for each block of classes."""
    mixed = mm.MixedLikelihood([("normal", 2, {"scale": 0.5}), ("categorical", 3)])
    config = mm.MMVAEConfig(input_dims={"x": (5,)}, decoders_dist={"x": mixed})
    x = np.array([[0.3, np.nan, 0, 1, 0], [1.0, 2.0, np.nan, np.nan, np.nan]], np.float32)
    observed = observe(config, mm.mask_nan(mm.Batch({"x": x})))
    decoded = np.random.default_rng(0).normal(size=(2, 5))
    log_p = log_likelihood(mixed.likelihood, mixed.params)(decoded, observed.data["x"])
    logits = jax.nn.log_softmax(decoded[:, 2:])
    expected = [
        norm.logpdf(0.3, decoded[0, 0], 0.5) + logits[0, 1],
        norm.logpdf([1.0, 2.0], decoded[1, :2], 0.5).sum(),
    ]
    np.testing.assert_allclose(log_p, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "aggregation", ["moe", *(pytest.param(x, marks=pytest.mark.slow) for x in ("poe", "mopoe"))]
)
def test_likelihoods_in_closed_form(x64, aggregation):
    """log p of the observed entries of a normal, whose covariance has their rows and columns."""
    problem = linear_gaussian(2)
    data = problem.sample(4)
    masks = {name: np.random.default_rng(3).random(x.shape) < 0.6 for name, x in data.items()}
    model = problem.model(aggregation=aggregation)
    nll = mm.compute_joint_nll(model, mm.Batch(data, masks), jax.random.key(0), K=5000)
    w = np.concatenate([problem.weight[name] for name in ("a", "b")])
    noise = [problem.sigma[name] ** 2 * np.ones(np.prod(DIMS[name])) for name in ("a", "b")]
    cov = w @ np.diag(problem.prior_scale**2) @ w.T + np.diag(np.concatenate(noise))
    bias = np.concatenate([problem.bias[name] for name in ("a", "b")])
    x = np.concatenate([data[name].reshape(4, -1) for name in ("a", "b")], 1)
    seen = np.concatenate([masks[name].reshape(4, -1) for name in ("a", "b")], 1)
    expected = [
        multivariate_normal(bias[o], cov[np.ix_(o, o)]).logpdf(row[o]) if o.any() else 0
        for row, o in zip(x, seen, strict=True)
    ]
    np.testing.assert_allclose(-nll, expected, atol=0.15)


def test_likelihoods_with_private_latents_and_clusters_in_closed_form(x64):
    """The model of an example's observed entries is one with fewer rows in its weights."""
    problem = private_gaussian(2, num_clusters=3)
    data, rng = problem.sample(4), np.random.default_rng(3)
    masks = {name: rng.random(x.shape) < 0.6 for name, x in data.items()}
    batch = mm.Batch(with_garbage(data, masks, np.nan), masks)
    nll = mm.compute_joint_nll(problem.model(), batch, jax.random.key(0), K=5000)
    expected = []
    for row in range(4):
        seen = {name: mask[row].ravel() for name, mask in masks.items()}
        weight = {name: problem.weight[name][seen[name]] for name in seen}
        x = {name: data[name][row].ravel()[seen[name]][None] for name in seen}
        expected.append(dataclasses.replace(problem, weight=weight).log_prob(x, [*seen])[0])
    np.testing.assert_allclose(-nll, expected, atol=0.15)


def test_an_encoder_may_ask_for_the_mask():
    class Encoder(nnx.Module):
        def __call__(self, x, observed=None):
            count = (
                jnp.full(len(x), 4.0) if observed is None else observed.sum(1, dtype=jnp.float32)
            )
            return jnp.repeat(count[:, None], 2, 1), jnp.zeros((len(x), 2))

    config = mm.MMVAEConfig(input_dims={"x": (4,)}, latent_dim=2)
    model = mm.MMVAE(config, {"x": Encoder()}, rngs=nnx.Rngs(0))
    x, mask = np.ones((2, 4), np.float32), np.array([[True] * 4, [True, False, False, True]])
    encode = {"cond_mod": "x", "return_mean": True}
    some = mm.encode(model, mm.Batch({"x": x}, {"x": mask}), None, **encode)
    np.testing.assert_array_equal(some[:, 0, 0], [4, 2])
    np.testing.assert_array_equal(mm.encode(model, mm.Batch({"x": x}), None, **encode)[:, 0, 0], 4)


def test_nan_are_masked_by_row_or_by_entry():
    table, image = np.ones((3, 2), np.float32), np.ones((3, 2, 2, 1), np.float32)
    table[1, 0], image[2] = np.nan, np.nan
    arrays = mm.MultimodalArrays(
        {"table": table, "image": image, "bytes": np.ones((3, 2), np.uint8)},
        mask={"table": np.array([True, True, False]), "image": np.ones(3, bool),
              "bytes": np.array([False, True, True])},
    )  # fmt: skip
    mask = mm.mask_nan(arrays).mask
    assert mask["table"].tolist() == [[True, True], [False, True], [False, False]]
    assert mask["image"].tolist() == [True, True, False]
    assert mask["bytes"].tolist() == [False, True, True]
    hidden = mm.missing_at_random(mm.mask_nan(arrays), 1.0, seed=0)
    assert hidden.mask["table"].shape == (3, 2)


@pytest.mark.slow
def test_a_table_with_holes_is_trained_and_evaluated():
    x = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    x[np.random.default_rng(1).random(x.shape) < 0.3] = np.nan
    model = mm.MMVAE(mm.MMVAEConfig(input_dims={"x": (4,)}, latent_dim=2, K=2), rngs=nnx.Rngs(0))
    data = mm.mask_nan(mm.MultimodalArrays({"x": x}))
    state = mm.create_train_state(model, mm.make_optimizer(1e-3), key=jax.random.key(0))
    result = mm.fit(
        state, data, num_steps=2, batch_size=5, progress=False,
        evaluation=mm.Evaluation(data=data, batch_size=5),
    )  # fmt: skip
    assert np.isfinite(result.metrics["eval/loss"])


CONFIG = mm.MMVAEConfig(
    input_dims={"x": (4,), "own": (4,)},
    decoders_dist={"own": lambda decoded, x: -jnp.square(decoded - x).sum()},
)
COMPLETE = {"x": np.ones((2, 4), np.float32), "own": np.ones((2, 4), np.float32)}
HOLES = {"x": np.array([[1, np.nan, 1, 1]] * 2, np.float32)}
MISTAKES = {
    "another shape": (
        {}, {"x": np.ones((2, 3), bool), "own": np.ones(2, bool)},
        r"batch\.mask\['x'\] has shape \(2, 3\)",
    ),
    "a custom likelihood": (
        {}, {"x": np.ones(2, bool), "own": np.ones((2, 4), bool)},
        r"batch\.mask\['own'\] has shape \(2, 4\), but the custom",
    ),
    "NaN": (HOLES, None, r"batch\.data\['x'\] is nan in row 0 .*mm\.mask_nan"),
    "NaN where observed": (
        HOLES, {"x": np.ones((2, 4), bool), "own": np.ones(2, bool)},
        r"batch\.data\['x'\] is nan",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    data, mask, message = MISTAKES[name]
    with pytest.raises(ValueError, match=message):
        observe(CONFIG, mm.Batch(COMPLETE | data, mask))
