"""Models of counts and of mixed tables: settings, inputs, draws, evidence and training."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
from flax import nnx
from helpers.saved_models import assert_same

import mmvae_jax as mm
from mmvae_jax.inputs.model_inputs import encoder_input, model_inputs
from mmvae_jax.likelihood_settings import likelihood_of
from mmvae_jax.maths.likelihoods import Incomplete, log_likelihood
from mmvae_jax.metrics import as_examples

COUNTS = ("poisson", "negative_binomial", "zero_inflated_negative_binomial")
MIXED = mm.MixedLikelihood(
    [
        ("normal", 3, {"scale": mm.Learned(0.5, per_feature=True)}),
        ("bernoulli", 2),
        ("categorical", 4),
        ("poisson", 1),
    ]
)
CONFIG = mm.MMVAEConfig(
    input_dims={"rna": (6,), "clinical": (10,), "adt": (2, 3)},
    decoders_dist={"rna": COUNTS[2], "clinical": MIXED, "adt": "poisson"},
    decoder_dist_params={"rna": {"library_size": 100}},
    latent_dim=2,
    K=2,
)
SIZE = 8

value_and_grad = jax.jit(mm.value_and_grad)


def key(seed=0):
    return jax.random.key(seed)


def make_data():
    """Integers of several types, and a table of floats."""
    rng = np.random.default_rng(0)
    parts = [
        rng.normal(size=(SIZE, 3)),
        rng.integers(0, 2, (SIZE, 2)),
        np.eye(4)[rng.integers(0, 4, SIZE)],
        rng.poisson(30, (SIZE, 1)),
    ]
    return {
        "rna": rng.poisson(9, (SIZE, 6)),
        "clinical": np.concatenate(parts, 1).astype(np.float32),
        "adt": rng.poisson(3, (SIZE, 2, 3)).astype(np.uint8),
    }


@pytest.fixture(scope="module")
def model():
    return mm.MMVAE(CONFIG, rngs=nnx.Rngs(0))


def test_configs_are_saved_as_json():
    assert mm.MMVAEConfig.from_json(CONFIG.to_json()) == CONFIG
    assert hash(CONFIG) == hash(CONFIG.replace())
    assert CONFIG.to_dict()["decoders_dist"]["clinical"]["parts"][2] == ["categorical", 4, {}]


def test_dispersion_is_trained_for_each_feature(model):
    assert model.likelihood_params("rna")["dispersion"].tolist() == [1] * 6
    np.testing.assert_allclose(model.likelihood_params("rna")["zero_odds"], 0.1, rtol=1e-6)
    assert model.likelihood_params("clinical")["scale_0"].tolist() == [0.5] * 3
    fixed = CONFIG.replace(decoder_dist_params={"rna": {"dispersion": 2.0, "zero_odds": 1}})
    params = mm.MMVAE(fixed, rngs=nnx.Rngs(0)).likelihood_params("rna")
    assert params == {"dispersion": 2.0, "zero_odds": 1, "library_size": None}


def test_rescaling_counts_the_size_of_the_data():
    """Neither dispersions nor odds of zero enter it."""
    config = CONFIG.replace(uses_likelihood_rescaling=True)
    assert config.likelihood_factors == {"rna": 10 / 6, "clinical": 1.0, "adt": 10 / 6}


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, bool, np.float64, jnp.bfloat16])
def test_counts_of_any_type_are_numbers(dtype):
    """Bytes of counts are no intensities."""
    x = np.array([[[0, 1, 1], [0, 0, 1]]])
    found = model_inputs(CONFIG, {"adt": x.astype(dtype)})["adt"]
    np.testing.assert_array_equal(found, x)
    assert found.dtype == jnp.float32


def test_encoders_see_logarithms_of_counts():
    """Also of the columns of a mixed table that are counts, and only of these."""
    data = model_inputs(CONFIG, make_data())
    for name in ("rna", "adt"):
        np.testing.assert_allclose(
            encoder_input(CONFIG, name, data[name]),
            np.log1p(np.float64(make_data()[name])),
            rtol=1e-6,
        )
    table, expected = make_data()["clinical"], make_data()["clinical"].copy()
    expected[:, 9] = np.log1p(table[:, 9])
    np.testing.assert_allclose(encoder_input(CONFIG, "clinical", table), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "column", "value", "message"),
    [
        ("rna", 4, -1, r"'rna'\] is -1 in row 5 of the batch: a zero_inflated_negative_bin"),
        ("rna", 4, 2.5, r"'rna'\] is 2.5 in row 5 .* takes whole numbers from 0 to 2e\+09; give"),
        ("rna", 4, 4e9, r"'rna'\] is 4e\+09 in row 5"),
        ("rna", 4, np.nan, r"'rna'\] is nan in row 5 of the batch: mask"),
        ("clinical", 1, np.inf, r"'clinical'\] is inf in row 5 of the batch: mask"),
        ("clinical", 4, 2, r"'clinical'\] is 2 in row 5 of the batch: a bernoulli likelihood"),
        ("clinical", 6, 0.6, r"'clinical'\] is a vector that sums to 0.6 in row 5|1.6 in row 5"),
        ("clinical", 9, 1.5, r"'clinical'\] is 1.5 in row 5 of the batch: a poisson likelihood"),
    ],
)
def test_values_outside_of_the_support(model, name, column, value, message):
    data = make_data()
    data[name] = data[name].astype(np.float64)
    data[name][5, column] = value
    with pytest.raises(ValueError, match=message):
        mm.loss(model, mm.Batch(data), key())


def test_negative_integers_are_refused(model):
    data = make_data() | {"rna": make_data()["rna"] - 100}
    with pytest.raises(ValueError, match=r"'rna'\] is -\d+ in row 0 of the batch"):
        mm.loss(model, mm.Batch(data), key())


WRONG_SETTINGS = {
    "unknown parameter": (
        {"decoder_dist_params": {"rna": {"scale": 1.0}}},
        r"sets 'scale', which the zero_inflated_negative_binomial likelihood does not have: it "
        r"takes \['dispersion', 'library_size', 'zero_odds'\]",
    ),
    "negative dispersion": (
        {"decoder_dist_params": {"rna": {"dispersion": -1}}},
        r"\['rna'\]\['dispersion'\] is -1: give a finite number above 0",
    ),
    "no dispersion": (
        {"decoder_dist_params": {"rna": {"dispersion": None}}},
        r"\['rna'\]\['dispersion'\] is None: give a finite number above 0",
    ),
    "size that is trained": (
        {"decoder_dist_params": {"rna": {"library_size": mm.Learned(10.0)}}},
        r"\['rna'\]\['library_size'\] is Learned\(.*\): give a number",
    ),
    "flag as a size": (
        {"decoder_dist_params": {"rna": {"library_size": True}}},
        r"\['rna'\]\['library_size'\] is True: give a finite number above 0",
    ),
    "parameters beside the parts": (
        {"decoder_dist_params": {"clinical": {"scale": 1.0}}},
        r"decoder_dist_params\['clinical'\] is .*: give the parameters of a MixedLikelihood in",
    ),
    "columns without a part": (
        {"decoders_dist": {"clinical": mm.MixedLikelihood([("normal", 9)])}},
        r"decoders_dist\['clinical'\] is normal \(9\), 9 columns, but the modality's input_dims",
    ),
}


@pytest.mark.parametrize(("fields", "message"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_wrong_settings(fields, message):
    settings = {"decoders_dist": CONFIG.decoders_dist, "decoder_dist_params": None, **fields}
    with pytest.raises(ValueError, match=message):
        mm.MMVAEConfig(input_dims=CONFIG.input_dims, **settings)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], r"MixedLikelihood.parts is \[\]: give a list of \(likelihood, size\)"),
        ("normal", r"MixedLikelihood.parts is 'normal': give a list"),
        ([("normal",)], r"parts\[0\] is \('normal',\): give \(likelihood, size\) or"),
        (["normal"], r"parts\[0\] is 'normal': give \(likelihood, size\) or"),
        ([("normal", 2), ("gamma", 2)], r"parts\[1\].likelihood is 'gamma': choose one of"),
        ([("normal", 0)], r"parts\[0\].size is 0: give an integer of at least 1"),
        ([("normal", 1, {"scale": 0})], r"parts\[0\].params\['scale'\] is 0: give a finite"),
        ([("normal", 1, {"rate": 1})], r"parts\[0\].params sets 'rate', which the normal"),
        ([("poisson", 1, {"library_size": 9})], r"\['library_size'\] is 9: give counts of a libr"),
        ([("normal", 1, 0.5)], r"parts\[0\].params is 0.5: give a dict"),
    ],
)
def test_wrong_parts(parts, message):
    with pytest.raises(ValueError, match=message):
        mm.MixedLikelihood(parts)


def test_overrides_of_a_part(model):
    batch, overrides = (
        mm.Batch(make_data()),
        mm.Overrides(decoder_dist_params={"clinical": {"scale": 0.5}}),
    )
    with pytest.raises(ValueError, match=r"sets 'scale', which the normal \(3\) \+ bernoulli"):
        mm.loss(model, batch, key(), overrides=overrides)


def test_entries_of_a_mixed_table_are_those_of_its_parts(model):
    """Numbers, bits and counts by column, classes by block; the log density is their sum."""
    decoded, x = mm.decode(model, jnp.ones(2))["clinical"], jnp.asarray(make_data()["clinical"][0])
    likelihood, scale = likelihood_of(MIXED), jnp.array([0.5, 1.0, 2.0])
    params = model.likelihood_params("clinical") | {"scale_0": scale}
    entries = likelihood.entry_log_prob(decoded, x, **params)
    logits = decoded[5:9] - scipy.special.logsumexp(decoded[5:9])
    expected = [
        *scipy.stats.norm.logpdf(x[:3], decoded[:3], scale),
        *scipy.stats.bernoulli.logpmf(x[3:5], scipy.special.expit(decoded[3:5])),
        logits[int(x[5:9].argmax())],
        *scipy.stats.poisson.logpmf(x[9:], np.exp(decoded[9:])),
    ]
    np.testing.assert_allclose(entries, expected, rtol=1e-4)
    np.testing.assert_allclose(likelihood.log_prob(decoded, x, **params), sum(expected), rtol=1e-4)


def test_draws_and_expected_values_of_a_mixed_table(model):
    """Every column has the mean and the values of its part."""
    z = jnp.broadcast_to(jnp.array([0.3, -0.5]), (8000, 2))
    x = np.asarray(mm.decode(model, z, modalities="clinical", key=key(), sample=True)["clinical"])
    mean = mm.expected_values(model, mm.decode(model, z[:1], modalities="clinical"))["clinical"][0]
    assert (np.abs(x.mean(0) - mean) < 4 * x.std(0) / np.sqrt(len(x)) + 1e-6).all()
    assert set(np.unique(x[:, 3:9])) == {0, 1}
    assert (x[:, 5:9].sum(1) == 1).all()
    np.testing.assert_array_equal(x[:, 9], np.floor(x[:, 9]))
    np.testing.assert_allclose(x[:, :3].std(0), 0.5, rtol=0.04)


def test_expected_values(model):
    """Means of counts, with excess zeros and the size of the library."""
    decoded = mm.decode(model, jnp.ones(2))
    found = mm.expected_values(model, decoded)
    np.testing.assert_allclose(found["adt"], np.exp(decoded["adt"]), rtol=1e-6)
    shares = scipy.special.softmax(decoded["rna"])
    np.testing.assert_allclose(found["rna"], 100 * shares / 1.1, rtol=1e-5)
    custom = mm.MMVAEConfig(input_dims={"x": (2,)}, decoders_dist={"x": lambda d, x: 0.0})
    with pytest.raises(ValueError, match=r"decoded\['x'\] has a likelihood without a mean"):
        mm.expected_values(mm.MMVAE(custom, rngs=nnx.Rngs(0)), {"x": jnp.zeros((1, 2))})


def test_generated_counts_are_judged_by_their_means():
    decoded = jnp.log(jnp.array([[2.5, 30.0, 0.1], [1.0, 2.0, 3.0]]))
    np.testing.assert_allclose(as_examples(CONFIG, "adt", decoded), np.exp(decoded), rtol=1e-6)
    table = jnp.array([0.5, -1, 3, -2, 2, 0, 3, 1, 2, np.log(7)])
    expected = [0.5, -1, 3, 0, 1, 0, 1, 0, 0, 7]
    np.testing.assert_allclose(as_examples(CONFIG, "clinical", table), expected, rtol=1e-6)


@pytest.mark.slow
def test_missing_modalities_of_counts(model):
    """Placeholders of missing rows change neither loss nor gradient, bit for bit."""
    mask = {name: np.arange(SIZE) % 3 != number for number, name in enumerate(CONFIG.modalities)}
    found = []
    for placeholder in (0, np.nan):
        data = {name: np.array(x, np.float32) for name, x in make_data().items()}
        for name, x in data.items():
            x[~mask[name]] = placeholder
        found.append(value_and_grad(model, mm.Batch(data, mask), key()))
    chex.assert_trees_all_equal(*found)
    chex.assert_tree_all_finite(found[0])


@pytest.mark.slow
def test_missing_entries_have_no_share_of_a_library():
    """The density is that of a table without these columns."""
    logits, x = np.random.default_rng(0).normal(size=(3, 5)), np.arange(15.0).reshape(3, 5)
    observed = np.array([True, False, True, True, False])
    likelihood = log_likelihood(likelihood_of("poisson"), {"library_size": 1.0})
    masked = Incomplete(jnp.where(observed[None], x, 0), jnp.tile(observed, (3, 1)))
    expected = likelihood(jnp.asarray(logits[:, observed]), jnp.asarray(x[:, observed]))
    np.testing.assert_allclose(likelihood(jnp.asarray(logits), masked), expected, rtol=1e-5)

    def of_nothing(logits):
        return likelihood(logits, Incomplete(jnp.zeros((3, 5)), jnp.zeros((3, 5), bool))).sum()

    value, gradient = jax.value_and_grad(of_nothing)(jnp.asarray(logits, jnp.float32))
    assert value == 0
    assert not gradient.any()


@pytest.mark.slow
def test_models_of_counts_are_saved_and_exported(model, tmp_path):
    """Pretrained folders hold all of them, and exported programs take integers."""
    folder = mm.save_pretrained(model, tmp_path / "model")
    assert_same(mm.from_pretrained(folder), model)
    card = (folder / "README.md").read_text()
    assert "dispersion 1 to 1 (trained), zero_odds 0.1 to 0.1 (trained), library_size 100" in card
    assert (
        "normal (3) + bernoulli (2) + categorical (4) + poisson (1), scale_0 0.5 to 0.5 (trained)"
        in card
    )
    exported = mm.load_exported(mm.export(model, tmp_path / "exported", platforms=["cpu"]))
    found = exported.encode(make_data(), return_mean=True)
    expected = mm.encode(model, mm.Batch(make_data()), None, return_mean=True)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_runs_resume(model, tmp_path):
    data = mm.MultimodalArrays(make_data())

    def train(num_steps, resume=False):
        checkpointing = mm.Checkpointing(directory=tmp_path / "run", resume=resume)
        state = mm.create_train_state(model, mm.make_optimizer(1e-3), key=key())
        options = {"batch_size": 4, "progress": False, "checkpointing": checkpointing}
        return mm.fit(state, data, num_steps=num_steps, **options).state.model()

    trained = train(2)
    loaded, config = mm.load(tmp_path / "run")
    assert config == CONFIG
    assert_same(loaded, trained)
    train(3, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("size", [None, 100.0])
@pytest.mark.parametrize("likelihood", COUNTS)
def test_training_raises_the_bound(likelihood, size):
    """Fifty steps on counts with a common cause, in two modalities."""
    rng = np.random.default_rng(0)
    cause = rng.normal(size=(64, 1))
    data = {m: rng.poisson(np.exp(cause * rng.normal(size=12) + 2)) for m in ("a", "b")}
    config = mm.MMVAEConfig(
        input_dims=dict.fromkeys(data, (12,)),
        decoders_dist=dict.fromkeys(data, likelihood),
        decoder_dist_params={name: {"library_size": size} for name in data},
        latent_dim=2,
        K=5,
    )
    state = mm.create_train_state(mm.MMVAE(config, rngs=nnx.Rngs(0)), optax.adam(2e-3), key=key())
    losses = []
    for _ in range(50):
        state, metrics = mm.train_step(state, mm.Batch(data))
        losses.append(float(metrics["loss"]))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.95 * losses[0]


class Line(nnx.Module):
    """``z w + b``: log means of counts, or with a log_var an expert."""

    def __init__(self, w, b, log_var=None):
        self.w, self.b, self.log_var = jnp.asarray(w), jnp.asarray(b), log_var

    def __call__(self, x):
        y = x @ self.w + self.b
        return y if self.log_var is None else (y, jnp.full_like(y, self.log_var))


@pytest.mark.usefixtures("x64")
def test_tight_bound_against_quadrature():
    """Many particles of a Poisson with one latent axis find log p(x), within standard errors."""
    w, b = np.array([[0.8, -0.5, 0.3]]), np.array([[1.0, 0.5, -0.2]])
    config = mm.MMVAEConfig(
        input_dims={"x": (3,)},
        decoders_dist={"x": "poisson"},
        latent_dim=1,
        K=4000,
        loss="iwae",
        prior_and_posterior_dist="normal",
    )
    encoder = Line(np.array([[0.5], [-0.4], [0.2]]), np.array([[-0.2]]), np.log(0.4))
    model = mm.MMVAE(config, {"x": encoder}, {"x": Line(w, b)}, rngs=nnx.Rngs(0))
    x = np.array([[4, 1, 0], [9, 0, 2], [0, 3, 1]])
    z = np.linspace(-10, 10, 20_001)[:, None]
    log_p = scipy.stats.poisson.logpmf(x[:, None], np.exp(z @ w + b)).sum(-1)
    log_p += scipy.stats.norm.logpdf(z[:, 0])
    expected = scipy.special.logsumexp(log_p, 1) + np.log(z[1, 0] - z[0, 0])
    loss = jax.jit(lambda key: mm.loss(model, mm.Batch({"x": x}), key))
    losses = np.array([loss(k) for k in jax.random.split(key(), 16)])
    error = losses.std(ddof=1) / np.sqrt(len(losses))
    assert abs(losses.mean() + expected.mean()) < 4 * error + 1e-3
    assert error < 5e-3
