"""Measurements of models with known results; the last batch is always incomplete."""

from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx
from helpers.linear_gaussian import linear_gaussian
from helpers.small_model import make_data, make_model
from scipy.stats import norm

import mmvae_jax as mm
from experiments import coherence_measurements, image_measurements, measurements
from experiments.experiment import some_rows
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data import num_examples
from mmvae_jax.metrics import ssim

DIM = (12, 12, 1)
NUM_CLASSES = 3
#: Two classes are rare, so that means over examples and over classes differ.
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Splits eight examples into two full batches and an incomplete one."""
    for module in (measurements, image_measurements):
        monkeypatch.setattr(module, "CHUNK", 3)


class Mean(nnx.Module):
    """Encodes the mean intensity plus an offset, with a tiny scale."""

    def __init__(self, offset=0.0):
        self.offset = offset

    def __call__(self, x):
        mean = x.mean((1, 2, 3)) + self.offset
        loc = jnp.stack([mean, jnp.zeros_like(mean)], axis=1)
        return loc, jnp.full_like(loc, -20.0)


class Constant(nnx.Module):
    """Decodes an image of constant intensity, the first latent plus an offset."""

    def __init__(self, offset=0.0):
        self.offset = offset

    def __call__(self, z):
        return jnp.broadcast_to(z[:, 0, None, None, None] + self.offset, (len(z), *DIM))


class Blank(nnx.Module):
    """Decodes the same image from every z."""

    def __call__(self, z):
        return jnp.full((len(z), *DIM), 0.25)


class Nearest:
    """Classifies images by intensity: 0, 0.5 and 1 are the classes 0, 1 and 2."""

    def predict(self, x):
        seen = np.round(2 * np.asarray(x).mean((1, 2, 3)))
        return np.clip(seen, 0, NUM_CLASSES - 1).astype(int)


def picture_model(**networks):
    """Returns a model from an encoder and a decoder per modality, with a standard normal prior."""
    config = mm.MMVAEConfig(
        input_dims=dict.fromkeys(networks, DIM), latent_dim=2, prior_and_posterior_dist="normal"
    )
    encoders, decoders = ({name: pair[i] for name, pair in networks.items()} for i in range(2))
    return mm.MMVAE(config, encoders, decoders, rngs=nnx.Rngs(0))


def class_pictures(labels, *names):
    """Returns images whose intensity is the class / 2."""
    x = np.broadcast_to(labels[:, None, None, None] / 2, (len(labels), *DIM)).astype(np.float32)
    return MultimodalArrays(dict.fromkeys(names, x), labels)


def byte_pictures(num, *names):
    """Returns images of random bytes, with a different brightness in each example."""
    rng = np.random.default_rng(0)
    data = {
        name: (rng.random((num, *DIM)) * rng.integers(20, 256, (num, 1, 1, 1))).astype(np.uint8)
        for name in names
    }
    return MultimodalArrays(data, np.arange(num) % NUM_CLASSES)


@pytest.mark.slow
def test_coherences_of_models_with_offsets(monkeypatch):
    """Generations from a and all generated b are one class too high, except in class 2."""
    # Two batches of examples, 144 of samples.
    monkeypatch.setattr(coherence_measurements, "CHUNK", 7)
    model = picture_model(
        a=(Mean(offset=0.5), Constant()), b=(Mean(), Constant(offset=0.5)), c=(Mean(), Constant())
    )
    found = coherence_measurements.measure_coherences(
        SimpleNamespace(num_classes=NUM_CLASSES, num_samples=1001, weighting="mixture"),
        model,
        class_pictures(LABELS, "a", "b", "c"),
        dict.fromkeys("abc", Nearest()),
        jax.random.key(0),
    )
    wrong = 2 / len(LABELS)
    right = {"a": 1.0, "b": wrong, "c": 1.0}
    pairs = {"a": dict.fromkeys("abc", wrong), "b": right, "c": right}
    assert found["conditional_coherence_pairs"] == pairs
    assert found["conditional_coherence"] == pytest.approx((3 * wrong + 3) / 6)
    assert found["conditional_coherence_macro"] == pytest.approx((3 * (1 / 3) + 3) / 6)
    subsets = found["conditional_coherence_subsets"]
    assert [*subsets] == ["a", "b", "c", "a+b", "a+c", "b+c"]
    assert subsets["b+c"] == right
    assert found["conditional_coherence_by_size"][1] == found["conditional_coherence"]
    # b agrees with a and c where both are 0, 2 z + 1 < 1/2, or 2, 2 z > 3/2; all draws count once.
    share = norm.cdf(-0.25) + norm.sf(0.75)
    standard_error = np.sqrt(share * (1 - share) / 1001)
    assert abs(found["joint_coherence"] - share) < 4 * standard_error
    assert found["joint_coherence"] * 1001 == pytest.approx(round(found["joint_coherence"] * 1001))


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["mixture", "importance"])
def test_several_given_modalities_are_used_as_the_config_says(weighting, monkeypatch):
    """The expert of a is one class too high, except in class 2, and the likelihoods tell."""
    monkeypatch.setattr(coherence_measurements, "CHUNK", 48)
    labels = np.tile(LABELS, 6)
    found = coherence_measurements.measure_coherences(
        SimpleNamespace(num_classes=NUM_CLASSES, num_samples=48, weighting=weighting),
        picture_model(
            a=(Mean(offset=0.5), Constant()), b=(Mean(), Constant()), c=(Mean(), Constant())
        ),
        class_pictures(labels, "a", "b", "c"),
        dict.fromkeys("abc", Nearest()),
        jax.random.key(0),
    )
    # Half of the draws come from a's expert, and a quarter of the examples are of class 2.
    share = {"mixture": (1 + 1 / 4) / 2, "importance": 1.0}[weighting]
    standard_error = np.sqrt(share * (1 - share) / len(labels))
    difference = found["conditional_coherence_subsets"]["a+b"]["c"] - share
    assert abs(difference) <= 4 * standard_error
    # The two shares differ by more than that.
    assert abs(difference) < 0.3


@pytest.mark.slow
def test_coherence_of_samplers_is_that_of_the_latents_of_data(monkeypatch):
    """b is one class higher than a, except in class 2."""
    monkeypatch.setattr(coherence_measurements, "CHUNK", 256)
    labels = np.tile(LABELS, 60)
    found = coherence_measurements.measure_samplers(
        SimpleNamespace(num_classes=NUM_CLASSES, num_samples=1000),
        picture_model(a=(Mean(), Constant()), b=(Mean(), Constant(offset=0.5))),
        class_pictures(labels, "a", "b"),
        dict.fromkeys("ab", Nearest()),
        jax.random.key(0),
    )
    share = np.mean(labels == 2)
    standard_error = np.sqrt(share * (1 - share) * (1 / 1000 + 1 / len(labels)))
    assert abs(found["joint_coherence_gaussian_mixture"] - share) < 4 * standard_error
    # A flow spreads a little of its mass between latents that lie at three points.
    assert abs(found["joint_coherence_flow"] - share) < 0.1 + 4 * standard_error


def test_each_modality_has_its_own_latents():
    """Half of the images in a have the next class."""
    labels = np.arange(90) % NUM_CLASSES
    dataset = class_pictures(labels, "a", "b")
    shown = (labels + np.arange(90) % 2) % NUM_CLASSES
    dataset.data["a"] = class_pictures(shown, "a").data["a"]
    found = measurements.measure_latents(
        picture_model(a=(Mean(), Constant()), b=(Mean(), Constant())),
        class_pictures(labels, "a", "b"),
        dataset,
    )
    assert found["latent_probe_modalities"] == {"a": 0.5, "b": 1.0}
    assert found["latent_probe"] == 0.75
    assert found["clustering_accuracy"] == {"a": 0.5, "b": 1.0}


def test_clusters_of_the_prior_are_matched_with_classes(monkeypatch):
    """Three of four clusters lie at the classes' intensities, and the fourth is far away."""
    config = mm.MMVAEConfig(
        input_dims={"a": DIM, "b": DIM},
        latent_dim=2,
        number_of_clusters=4,
        prior_and_posterior_dist="normal",
    )
    monkeypatch.setattr(measurements, "CHUNK", len(LABELS) // 2)
    networks = {"a": Mean(), "b": Mean()}, {"a": Constant(), "b": Constant()}
    model = mm.MMVAE(config, *networks, rngs=nnx.Rngs(0))
    model.clusters["loc"].set_value(jnp.array([[1.0, 0], [9.0, 9.0], [0, 0], [0.5, 0]]))
    model.clusters["log_var"].set_value(jnp.full((4, 2), -5.0))
    dataset = class_pictures(LABELS, "a", "b")
    found = measurements.measure_clusters(model, dataset, jax.random.key(0))["prior_clusters"]
    assert found == {
        "accuracy": 1.0,
        "nmi": pytest.approx(1),
        "ari": 1.0,
        "found": 3,
        "effective": pytest.approx(2**1.5),  # shares of 1/2, 1/4 and 1/4
    }
    assert "prior" not in measurements.measure_mean_divergences(model, dataset)["a"]
    model = picture_model(a=(Mean(), Constant()), b=(Mean(), Constant()))
    assert measurements.measure_clusters(model, dataset, jax.random.key(0)) == {}


class Padded(Mean):
    """Encodes the mean intensity, and the same private latents for all images."""

    def __init__(self, offset, num_private):
        super().__init__(offset)
        self.num_private = num_private

    def __call__(self, x):
        loc = jnp.pad(super().__call__(x)[0], ((0, 0), (0, self.num_private)), constant_values=7)
        return loc, jnp.full_like(loc, -1.0)


def test_divergences_with_private_latents_are_those_of_u():
    config = mm.MMVAEConfig(
        input_dims={"a": DIM, "b": DIM}, latent_dim=2, prior_and_posterior_dist="normal"
    )
    decoders = {"a": Constant(), "b": Constant()}
    found = []
    for private in (0, 3):
        encoders = {"a": Padded(0.0, private), "b": Padded(0.5, private)}
        settings = config.replace(modalities_specific_dim=private)
        model = mm.MMVAE(settings, encoders, decoders, rngs=nnx.Rngs(0))
        dataset = class_pictures(LABELS, "a", "b")
        found.append(measurements.measure_mean_divergences(model, dataset))
    chex.assert_trees_all_close(*found, rtol=1e-5)  # two programs round differently
    assert found[0]["a"]["prior"] > 0


def test_divergences_of_a_product_are_those_given_one_modality():
    """Experts of scale 1, and a prior of precision 3: N(loc / 4, 1 / 4) given one of them."""
    config = mm.MMVAEConfig(
        input_dims={"a": DIM, "b": DIM},
        latent_dim=2,
        prior_and_posterior_dist="normal",
        aggregation="poe",
    )
    encoders = {"a": Wide(0.0), "b": Wide(2.0)}
    model = mm.MMVAE(config, encoders, {"a": Constant(), "b": Constant()}, rngs=nnx.Rngs(0))
    model.prior_log_var.set_value(jnp.full(2, -np.log(3)))
    found = measurements.measure_mean_divergences(model, class_pictures(LABELS, "a", "b"))
    assert found["a"]["b"] == pytest.approx((2 / 4) ** 2 / (2 / 4))


class Wide(Mean):
    """Encodes the mean intensity, with a scale of 1."""

    def __call__(self, x):
        loc = super().__call__(x)[0]
        return loc, jnp.zeros_like(loc)


def test_a_constant_latent_is_not_active():
    model = picture_model(a=(Mean(), Constant()), b=(Mean(), Constant()))
    dataset = class_pictures(LABELS, "a", "b")
    dataset.data["b"] = np.full_like(dataset.data["a"], 0.3)
    assert measurements.measure_active_units(model, dataset) == {"a": 1, "b": 0}


def test_reconstructions_are_compared_with_intensities():
    dataset = byte_pictures(8, "a", "b")
    model = picture_model(a=(Mean(), Constant()), b=(Mean(), Blank()))
    found = image_measurements.measure_reconstructions(model, dataset, jax.random.key(0))[
        "reconstruction"
    ]
    x = {name: pictures / np.float32(255) for name, pictures in dataset.data.items()}
    shown = {"a": np.broadcast_to(x["a"].mean((1, 2, 3), keepdims=True), x["a"].shape)}
    shown["b"] = np.full_like(x["b"], 0.25)
    for name, original in x.items():
        expected = np.square(original - shown[name]).mean()
        np.testing.assert_allclose(found[name]["mse"], expected, rtol=1e-3)  # z has some noise
        similarity = np.mean(ssim(jnp.asarray(original), jnp.asarray(shown[name])))
        np.testing.assert_allclose(found[name]["ssim"], similarity, atol=1e-3)


@pytest.mark.slow
def test_small_images_have_no_ssim():
    dataset = MultimodalArrays({name: np.asarray(x) for name, x in make_data().items()})
    found = image_measurements.measure_reconstructions(make_model(), dataset, jax.random.key(0))
    assert {name: [*row] for name, row in found["reconstruction"].items()} == {"b": ["mse"]}


def frechet(p, q):
    """Returns the squared distance of normals with the moments of two samples."""
    p_cov, q_cov = np.cov(p.T), np.cov(q.T)
    roots = np.sqrt(np.linalg.eigvals(p_cov @ q_cov).real.clip(min=0))
    return np.square(p.mean(0) - q.mean(0)).sum() + np.trace(p_cov + q_cov) - 2 * roots.sum()


def test_frechet_distances_leave_out_padding(monkeypatch):
    monkeypatch.setattr(image_measurements, "CHUNK", 9)

    def features(images):
        return np.asarray(images)[:, :2, 0, 0]

    num = 200  # 22 batches of nine, and two more
    dataset = byte_pictures(num, "a", "b")
    model = picture_model(a=(Mean(), Constant()), b=(Mean(), Blank()))
    found = image_measurements.measure_frechet(
        model, dataset, dict.fromkeys("ab", features), jax.random.key(0)
    )
    assert [*found] == ["prior", "a", "b"]
    real = {name: features(pictures / 255) for name, pictures in dataset.data.items()}
    for given in "ab":
        level = (dataset.data[given] / 255).mean((1, 2, 3))
        expected = frechet(real["a"], np.stack([level, level], axis=1))
        np.testing.assert_allclose(found[given]["a"], expected, rtol=1e-3)
    blank = np.square(real["b"].mean(0) - 0.25).sum() + np.trace(np.cov(real["b"].T))
    for row in found.values():
        np.testing.assert_allclose(row["b"], blank, rtol=1e-5)
    z = norm.ppf((np.arange(10_000) + 0.5) / 10_000)
    np.testing.assert_allclose(
        found["prior"]["a"], frechet(real["a"], np.stack([z, z], axis=1)), rtol=0.35
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", ["normal", "laplace_with_softmax"])
def test_divergences_are_the_integrals(family):
    model = make_model(prior_and_posterior_dist=family)
    model.prior_log_var.set_value(jnp.array([0.5, -0.3, 0.0, 0.2]))
    data = make_data()
    found = measurements.measure_mean_divergences(
        model, MultimodalArrays({name: np.asarray(x) for name, x in data.items()})
    )
    density = {"normal": scipy.stats.norm, "laplace_with_softmax": scipy.stats.laplace}[family]
    loc, scale = (np.asarray(x, np.float64) for x in model.experts(data))
    prior = [np.broadcast_to(np.asarray(p, np.float64), loc.shape[1:]) for p in model.pz_params]
    experts = dict(zip(data, zip(loc, scale, strict=True), strict=True))

    def divergence(p, q):
        step = 1e-3
        z = p[0] + p[1] * np.arange(-30 + step / 2, 30, step)[:, None, None]
        log_p, log_q = (density.logpdf(z, *params) for params in (p, q))
        return (np.exp(log_p) * (log_p - log_q) * step * p[1]).sum((0, 2)).mean()

    for source, row in found.items():
        assert [*row] == [*(name for name in data if name != source), "prior"]
        for target, value in row.items():
            expected = divergence(experts[source], (experts | {"prior": prior})[target])
            np.testing.assert_allclose(value, expected, rtol=1e-4)


@pytest.mark.slow
def test_likelihoods_of_a_linear_gaussian_model():
    case = linear_gaussian(3)
    data = case.sample(13)
    dataset = MultimodalArrays({name: x.astype(np.float32) for name, x in data.items()})
    model, num = case.model(), 25
    found = [
        measurements.measure_likelihoods(model, dataset, key, K=500)
        for key in jax.random.split(jax.random.key(0), num)
    ]
    assert {(each["num_examples"], each["K"]) for each in found} == {(13, 500)}
    exact = {"joint": case.log_prob(data, case.names)}
    exact |= {name: case.log_prob(data, [name]) for name in case.names}
    for name, log_prob in exact.items():
        rows = [{"joint": each["joint"], **each["marginal"]}[name] for each in found]
        expected = {"mean": log_prob.mean(), "standard_error": log_prob.std(ddof=1) / np.sqrt(13)}
        for field, value in expected.items():
            estimates = np.array([row[field] for row in rows])
            # Examples share their noise, so that only other keys show an estimate's spread. Its
            # bias is half of the weights' variance over K, some 0.001: a fifth of the error.
            error = estimates.std(ddof=1) / np.sqrt(num)
            assert abs(estimates.mean() - value) < 4 * error
            assert error < 0.01


def test_drawn_examples_are_always_the_same():
    dataset = byte_pictures(50, "a")
    rows = some_rows(dataset, 20)
    assert len(np.unique(rows)) == 20
    assert (np.diff(rows) > 0).all()
    assert rows.max() > 25  # not simply the first
    np.testing.assert_array_equal(some_rows(dataset, 20), rows)
    np.testing.assert_array_equal(some_rows(dataset, 60), np.arange(num_examples(dataset)))


def test_labels_are_needed():
    with pytest.raises(ValueError, match="labels is None"):
        measurements.labels_of(byte_pictures(3, "a")._replace(labels=None))
