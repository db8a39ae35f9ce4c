"""Probes of every expert: which latents they see, and what their protocol says."""

import jax
import numpy as np
import pytest
from helpers.small_model import DIMS, every_mask, make_data, make_model

import mmvae_jax as mm
from mmvae_jax.data.arrays import MultimodalArrays
from mmvae_jax.metrics import probe
from mmvae_jax.metrics.posteriors import posteriors
from mmvae_jax.metrics.probe import latent_probe, latents_of_experts, probe_experts

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


def test_every_expert_has_its_probe(monkeypatch):
    calls = []

    def counted(*arrays, **settings):
        calls.append((arrays, settings))
        return len(calls) / 10

    monkeypatch.setattr(probe, "latent_probe", counted)
    model, train, test = make_model(), make_dataset(every_mask()), make_dataset()
    accuracy, protocol = probe_experts(model, train, test, standardise=False, C=10.0)
    assert accuracy == {"a": 0.1, "b": 0.2, "c": 0.3}
    assert protocol == "logistic regression, L2 penalty, C=10, on plain means of the posteriors"
    for (arrays, settings), name in zip(calls, DIMS, strict=True):
        assert settings == {"standardise": False, "C": 10.0}
        fit, score = latents_of_experts(model, train)[name], latents_of_experts(model, test)[name]
        for given, expected in zip(arrays, (*fit, *score), strict=True):
            np.testing.assert_array_equal(given, expected)


def test_samples_need_a_key_and_means_none():
    model, dataset = make_model(), make_dataset()
    with pytest.raises(ValueError, match="'samples'"):
        probe_experts(model, dataset, dataset, latents="samples")
    with pytest.raises(ValueError, match="'means' without a key"):
        probe_experts(model, dataset, dataset, jax.random.key(0))
    with pytest.raises(ValueError, match="labels is None"):
        probe_experts(model, dataset._replace(labels=None), dataset)


def test_the_penalty_and_the_scale_of_plain_axes_matter():
    """The penalty holds the weight of an axis of tiny scale at 0: the commoner class it is."""
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.3).astype(int)
    z = 1e-3 * (2 * labels[:, None] - 1 + 0.1 * rng.standard_normal((400, 1)))
    assert latent_probe(z, labels, z, labels) == 1
    plain = latent_probe(z, labels, z, labels, standardise=False)
    assert plain == np.mean(labels == 0)
    assert latent_probe(z, labels, z, labels, standardise=False, C=1e9) == 1
