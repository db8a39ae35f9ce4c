"""The probe against the best possible accuracy and chance; the latents of every expert."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_model import DIMS, every_mask, make_data, make_model

import mmvae_jax as mm
from mmvae_jax.data import MultimodalArrays
from mmvae_jax.metrics import latent_probe, latents_of_experts, posteriors

LABELS = np.arange(8) % 2


def make_dataset(mask=None):
    data = {name: np.asarray(x) for name, x in make_data().items()}
    return MultimodalArrays(data, LABELS, mask)


@pytest.mark.parametrize("batch_size", [8, 3])
def test_means_are_those_of_the_examples_that_have_the_modality(batch_size):
    model, mask = make_model(), every_mask()
    found = latents_of_experts(model, make_dataset(mask), batch_size=batch_size)
    experts, _ = posteriors(model, mm.Batch(make_data(), mask))
    for m, name in enumerate(DIMS):
        z, labels = found[name]
        np.testing.assert_allclose(z, experts.loc[m][mask[name]], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(labels, LABELS[mask[name]])


def test_means_given_one_modality_of_a_product_have_the_prior_in_it():
    """Those that ``encode`` finds with all other modalities missing."""
    model = make_model(prior_and_posterior_dist="normal", aggregation="poe")
    model.prior_log_var.set_value(jnp.array([-1.0, 0.0, 1.0, 2.0]))
    found = latents_of_experts(model, make_dataset())
    for name in DIMS:
        alone = mm.encode(model, mm.Batch(make_data()), None, cond_mod=name, return_mean=True)
        np.testing.assert_allclose(found[name][0], alone[:, 0], rtol=1e-4, atol=1e-6)


def test_samples_scatter_about_the_means_by_the_scales():
    model, num_copies = make_model(prior_and_posterior_dist="normal"), 500
    dataset = make_dataset()
    many = MultimodalArrays(
        {name: np.repeat(x, num_copies, axis=0) for name, x in dataset.data.items()},
        np.repeat(LABELS, num_copies),
    )
    samples = latents_of_experts(model, many, jax.random.key(0))
    experts, _ = posteriors(model, mm.Batch(dataset.data))
    for m, name in enumerate(DIMS):
        z = samples[name][0].reshape(8, num_copies, -1)
        error = (z.mean(1) - experts.loc[m]) / experts.scale[m] * np.sqrt(num_copies)
        assert np.abs(error).max() < 4.5  # of 32 averages
        np.testing.assert_allclose(z.std(1), experts.scale[m], rtol=0.2)


def test_latents_need_labels():
    with pytest.raises(ValueError, match="labels is None"):
        latents_of_experts(make_model(), make_dataset()._replace(labels=None))


def make_latents(num_examples: int, seed: int):
    labels = np.arange(num_examples) % 4
    z = np.random.default_rng(seed).standard_normal((num_examples, 6)).astype(np.float32)
    z[:, 0] += 2 * (labels // 2)
    z[:, 1] += 2 * (labels % 2)
    return z, labels


def test_the_probe_reaches_the_best_possible_accuracy():
    """Two independent axes, each cut in the middle of means 2 apart: right with Phi(1)^2."""
    train, test = make_latents(4000, seed=0), make_latents(20_000, seed=1)
    best = 0.8413447**2
    standard_error = np.sqrt(best * (1 - best) / 20_000)
    assert abs(latent_probe(*train, *test) - best) < 4 * standard_error


def test_the_probe_does_not_see_the_scale_of_an_axis():
    (train_z, train_labels), (test_z, test_labels) = make_latents(400, 0), make_latents(400, 1)
    scale = np.array([1e-3, 1, 1, 1, 1, 1e3], np.float32)
    plain = latent_probe(train_z, train_labels, test_z, test_labels)
    scaled = latent_probe(train_z * scale + 5, train_labels, test_z * scale + 5, test_labels)
    assert abs(plain - scaled) <= 2 / 400  # two latents at a boundary may change sides


def test_the_probe_of_noise_is_at_chance():
    """With 12 latents of 100 axes to learn from, only the training set is separable."""
    rng = np.random.default_rng(0)
    z, test_z = rng.standard_normal((12, 100)), rng.standard_normal((2000, 100))
    labels, test_labels = np.arange(12) % 4, rng.integers(4, size=2000)
    standard_error = np.sqrt(0.25 * 0.75 / 2000)
    assert abs(latent_probe(z, labels, test_z, test_labels) - 0.25) < 4 * standard_error
    assert latent_probe(z, labels, z, labels) == 1


def test_the_penalty_and_the_scale_of_plain_axes_matter():
    """The penalty keeps the weight of a tiny axis at 0, and the commoner class is predicted."""
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.3).astype(int)
    z = 1e-3 * (2 * labels[:, None] - 1 + 0.1 * rng.standard_normal((400, 1)))
    assert latent_probe(z, labels, z, labels) == 1
    plain = latent_probe(z, labels, z, labels, standardise=False)
    assert plain == np.mean(labels == 0)
    assert latent_probe(z, labels, z, labels, standardise=False, C=1e9) == 1


def test_without_scikit_learn_the_probe_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ImportError, match=r"mmvae_jax\[experiments\]"):
        latent_probe(*make_latents(8, 0), *make_latents(8, 1))
