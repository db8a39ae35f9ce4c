"""An MMVAE as a part of something larger, and other things as parts of an MMVAE."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from helpers.separate_experts import key
from helpers.small_model import DIMS, SmallDecoder, SmallEncoder, every_mask, make_data, make_model

import mmvae_jax as mm

LATENT_DIM = 4

value_and_grad = jax.jit(mm.value_and_grad)


@pytest.fixture
def batch():
    return mm.Batch(data=make_data(), mask=every_mask())


# Inside a larger model.


class LabelledMMVAE(nnx.Module):
    """An MMVAE with a classifier on its latents."""

    def __init__(self, mmvae, num_classes, *, rngs):
        self.mmvae = mmvae
        self.head = nnx.Linear(mmvae.config.latent_dim, num_classes, rngs=rngs)

    def __call__(self, data):
        return self.head(self.mmvae.experts(data).loc.mean(0))


@pytest.mark.slow
def test_one_term_of_a_larger_loss(batch):
    """`mm.loss` brings its estimator's gradient, and the other terms theirs."""
    model = LabelledMMVAE(make_model(), num_classes=2, rngs=nnx.Rngs(0))
    labels = jnp.arange(8) % 2

    def classification(model):
        logits = model(batch.data)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def total(model):
        return mm.loss(model.mmvae, batch, key()) + 0.5 * classification(model)

    found = nnx.to_pure_dict(nnx.jit(nnx.grad(total))(model))
    _, own = value_and_grad(model.mmvae, batch, key())
    others = nnx.to_pure_dict(nnx.jit(nnx.grad(classification))(model))
    expected = jax.tree.map(
        lambda own, other: own + 0.5 * other, nnx.to_pure_dict(own), others["mmvae"]
    )
    chex.assert_trees_all_close(found["mmvae"], expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(
        found["head"], jax.tree.map(lambda g: 0.5 * g, others["head"]), rtol=1e-6
    )


@pytest.mark.slow
def test_larger_model_under_an_nnx_optimizer(batch):
    model = LabelledMMVAE(make_model(), num_classes=2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, key):
        loss, grads = nnx.value_and_grad(lambda model: mm.loss(model.mmvae, batch, key))(model)
        optimizer.update(model, grads)
        return loss

    losses = [step(model, optimizer, jax.random.fold_in(key(), i)) for i in range(30)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1


class LinenModel(linen.Module):
    """A linen model one of whose parts is an MMVAE."""

    config: mm.MMVAEConfig

    @linen.compact
    def __call__(self, batch, key):
        mmvae = nnx.bridge.to_linen(mm.MMVAE, self.config, name="mmvae")
        scale = self.param("scale", linen.initializers.ones, ())
        return scale * mmvae(batch, key, nnx_method=mm.loss)


@pytest.mark.slow
def test_inside_a_linen_model():
    config = mm.MMVAEConfig(input_dims={"x": (3,), "y": (2,)}, latent_dim=2, K=2)
    batch = mm.Batch({"x": jnp.ones((4, 3)), "y": jnp.zeros((4, 2))})
    model = LinenModel(config)
    variables = jax.jit(model.init)(jax.random.key(0), batch, key())
    mmvae = mm.MMVAE(config, rngs=nnx.Rngs(0))
    nnx.update(mmvae, nnx.State(variables["params"]["mmvae"]))
    of_params = jax.value_and_grad(lambda p: model.apply({"params": p}, batch, key()))
    loss, grads = jax.jit(of_params)(variables["params"])
    metrics, expected = value_and_grad(mmvae, batch, key())
    np.testing.assert_allclose(loss, metrics["loss"], rtol=1e-6)
    found = nnx.to_pure_dict(nnx.State(grads["mmvae"]))
    chex.assert_trees_all_close(found, nnx.to_pure_dict(expected), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grads["scale"], loss, rtol=1e-6)


# Networks of other kinds inside an MMVAE.


class Trunk(nnx.Module):
    """A network on top of another, which it may share."""

    def __init__(self, trunk, dim, *, rngs):
        self.trunk = trunk
        self.stem = nnx.Linear(int(np.prod(dim)), 8, rngs=rngs)
        self.loc = nnx.Linear(8, LATENT_DIM, rngs=rngs)
        self.log_var = nnx.Linear(8, LATENT_DIM, rngs=rngs)

    def __call__(self, x):
        h = self.trunk(jnp.tanh(self.stem(x.reshape(len(x), -1))))
        return self.loc(h), self.log_var(h)


@pytest.mark.slow
def test_a_shared_trunk_gets_the_sum_of_the_gradients(batch):
    """One set of parameters, under the first of its names; its gradient is that of all its uses.

    `jax.jit` takes a module for a tree, in which each user of the trunk has one of its own.
    """

    def make(is_shared):
        first = nnx.Linear(8, 8, rngs=nnx.Rngs(1))
        rngs = nnx.Rngs(2)
        encoders = {
            m: Trunk(first if is_shared else nnx.clone(first), dim, rngs=rngs)
            for m, dim in DIMS.items()
        }
        decoders = {m: SmallDecoder(LATENT_DIM, dim, m) for m, dim in DIMS.items()}
        config = make_model().config
        return mm.MMVAE(config, encoders, decoders, rngs=nnx.Rngs(0))

    def gradients(model):
        return nnx.to_pure_dict(nnx.jit(mm.value_and_grad)(model, batch, key())[1])["encoders"]

    shared, apart = gradients(make(True)), gradients(make(False))
    assert [m for m in DIMS if "trunk" in shared[m]] == ["a"]
    total = jax.tree.map(lambda *g: sum(g), *(apart[m]["trunk"] for m in DIMS))
    chex.assert_trees_all_close(shared["a"]["trunk"], total, rtol=1e-5, atol=1e-6)


class LinenEncoder(linen.Module):
    @linen.compact
    def __call__(self, x):
        h = linen.tanh(linen.Dense(8)(x.reshape(len(x), -1)))
        return linen.Dense(LATENT_DIM)(h), linen.Dense(LATENT_DIM)(h)


@pytest.mark.slow
def test_a_linen_encoder(batch):
    data = make_data()
    encoder = nnx.bridge.ToNNX(LinenEncoder(), rngs=nnx.Rngs(3)).lazy_init(data["a"])
    others = make_model()
    encoders = {**dict(others.encoders.items()), "a": encoder}
    model = mm.MMVAE(others.config, encoders, dict(others.decoders.items()), rngs=nnx.Rngs(0))
    loc, log_var = encoder(data["a"])
    experts = model.experts(data)
    chex.assert_trees_all_close(
        (experts.loc[0], experts.scale[0]), (loc, model.log_var_to_std(log_var)), rtol=1e-6
    )
    state = mm.create_train_state(model, optax.sgd(1e-2), key=key())
    before = jax.tree.map(np.asarray, state.params["encoders"]["a"])
    state, _ = mm.train_step(state, batch)
    after = state.params["encoders"]["a"]
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), before, after)))


@pytest.mark.slow
def test_frozen_encoders(batch):
    """Encoders that were trained before stay as they are, bit for bit; all else is trained."""

    def labels(params):
        kinds = {part: "frozen" if part == "encoders" else "trained" for part in params}
        return {
            part: jax.tree.map(lambda _, kind=kinds[part]: kind, params[part]) for part in params
        }

    tx = optax.partition({"frozen": optax.set_to_zero(), "trained": optax.adam(1e-2)}, labels)
    state = mm.create_train_state(make_model(), tx, key=key())
    before = jax.tree.map(np.asarray, state.params)
    for _ in range(3):
        state, _ = mm.train_step(state, batch)
    after = state.params
    chex.assert_trees_all_equal(after["encoders"], before["encoders"])
    changed = jax.tree.map(lambda a, b: (a != b).any(), before["decoders"], after["decoders"])
    assert all(jax.tree.leaves(changed))
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert sum(x.size for x in moments) == 2 * sum(
        x.size for part in ("decoders", "prior_log_var") for x in jax.tree.leaves(before[part])
    )  # Adam keeps nothing for what is frozen


@pytest.mark.slow
def test_an_ensemble_is_a_vmap(batch):
    """Models with parameters and randomness of their own, trained in one call."""
    config = make_model().config

    def make(own_key):
        rngs = nnx.Rngs(jax.random.fold_in(own_key, 0))
        state = mm.create_train_state(
            mm.MMVAE(
                config,
                {m: Trunk(nnx.Linear(8, 8, rngs=rngs), dim, rngs=rngs) for m, dim in DIMS.items()},
                {m: SmallDecoder(LATENT_DIM, dim, m) for m, dim in DIMS.items()},
                rngs=rngs,
            ),
            optax.adam(1e-2),
            key=jax.random.fold_in(own_key, 1),
        )
        return state

    keys = jax.random.split(jax.random.key(4), 3)
    ensemble = jax.vmap(make)(keys)
    ensemble, metrics = jax.vmap(mm.train_step, in_axes=(0, None))(ensemble, batch)
    assert metrics["loss"].shape == (3,)
    assert len(np.unique(metrics["loss"])) == 3
    alone, of_one = mm.train_step(make(keys[1]), batch)
    member = jax.tree.map(lambda x: x[1], ensemble)
    np.testing.assert_allclose(metrics["loss"][1], of_one["loss"], rtol=1e-5)
    chex.assert_trees_all_close(member.params, alone.params, rtol=1e-4, atol=1e-4)
    assert member.model().config == config


# Encoders of several arrays.

NUM_TOKENS, LENGTH = 7, 5


class SentenceEncoder(nnx.Module):
    """The mean of the embeddings of the tokens that count."""

    def __init__(self, *, rngs):
        self.embed = nnx.Embed(NUM_TOKENS, 8, rngs=rngs)
        self.heads = nnx.Linear(8, 2 * LATENT_DIM, rngs=rngs)

    def __call__(self, x):
        counts = x["counts"].astype(jnp.float32)[..., None]
        mean = (self.embed(x["tokens"]) * counts).sum(1) / jnp.maximum(counts.sum(1), 1)
        return tuple(jnp.split(self.heads(mean), 2, axis=-1))


def sentence_log_prob(logits, x):
    """log p of the tokens that count."""
    log_p = jax.nn.log_softmax(logits)
    each = jnp.take_along_axis(log_p, x["tokens"][:, None], axis=-1)[:, 0]
    return jnp.where(x["counts"], each, 0).sum()


@pytest.fixture
def sentences():
    """A model of a table and of padded sentences."""
    config = mm.MMVAEConfig(
        input_dims={"table": (6,), "text": (LENGTH, NUM_TOKENS)},
        decoders_dist={"text": mm.Likelihood(sentence_log_prob)},
        latent_dim=LATENT_DIM,
        K=3,
    )
    encoders = {
        "table": SmallEncoder((6,), LATENT_DIM, "a"),
        "text": SentenceEncoder(rngs=nnx.Rngs(0)),
    }
    decoders = {m: SmallDecoder(LATENT_DIM, dim, m) for m, dim in config.input_dims.items()}
    return mm.MMVAE(config, encoders, decoders, rngs=nnx.Rngs(0))


def sentence_batch():
    lengths = np.array([5, 3, 1, 4])
    text = {
        "tokens": np.random.default_rng(0).integers(0, NUM_TOKENS, (4, LENGTH)),
        "counts": np.arange(LENGTH)[None] < lengths[:, None],
    }
    table = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    mask = {
        "table": np.array([True, True, False, True]),
        "text": np.array([True, False, True, True]),
    }
    return mm.Batch({"table": table, "text": text}, mask)


def test_padding_never_counts(sentences):
    """Neither tokens behind the end of a sentence nor missing sentences change a bit."""
    batch = sentence_batch()
    text, seen = batch.data["text"], batch.mask["text"][:, None] & batch.data["text"]["counts"]
    other = {**text, "tokens": np.where(seen, text["tokens"], NUM_TOKENS - 1 - text["tokens"])}
    assert (other["tokens"] != text["tokens"]).any()
    expected = value_and_grad(sentences, batch, key())
    found = value_and_grad(sentences, batch.replace(data={**batch.data, "text": other}), key())
    chex.assert_trees_all_equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sparse", "sampled"])
def test_several_arrays_train(sentences, kind):
    """Through tiles of particles, too, which take rows of the data."""
    state = mm.create_train_state(sentences, optax.adam(1e-2), key=key())
    batch, backward = sentence_batch(), mm.Backward(kind, chunk=2)
    losses = []
    for _ in range(30):
        state, metrics = mm.train_step(state, batch, backward=backward)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1


@pytest.mark.slow
def test_several_arrays_are_conditioned_on(sentences):
    """Each modality alone, the other one left out, and likelihoods of both."""
    batch = sentence_batch()
    rows = np.array([0, 3])
    few = jax.tree.map(lambda x: x[rows], batch)
    of_text = mm.encode(sentences, mm.Batch({"text": few.data["text"]}), None, return_mean=True)
    expected = mm.encode(sentences, few, None, cond_mod="text", return_mean=True)
    np.testing.assert_allclose(of_text, expected, rtol=1e-6)
    loc, _ = sentences.encoders["text"](jax.tree.map(jnp.asarray, few.data["text"]))
    np.testing.assert_allclose(of_text[:, 0], loc, rtol=1e-6)
    table = mm.Batch({"table": few.data["table"]})
    generated = mm.predict(sentences, table, key(), gen_mod="text")["text"]
    assert generated.shape == (2, 1, LENGTH, NUM_TOKENS)
    joint = mm.compute_joint_nll(sentences, few, key(), K=500)
    given = mm.compute_cond_nll_ratio(
        sentences, few, key(), cond_mod="table", pred_mods="text", K=500
    )
    alone = mm.compute_joint_nll(sentences, table, key(), K=500)
    np.testing.assert_allclose(alone + given, joint, atol=0.5)
