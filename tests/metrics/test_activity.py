"""Active units against known variances, streamed and with missing modalities."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_model import DIMS, every_mask, make_data, make_model

import mmvae_jax as mm
from mmvae_jax.data import MultimodalArrays
from mmvae_jax.metrics import active_units, measure_posterior_means, posteriors


def make_dataset():
    return MultimodalArrays({name: np.asarray(x) for name, x in make_data().items()})


def test_an_axis_is_active_above_the_threshold():
    assert active_units(np.array([0.011, 0.009, 0.0])).tolist() == [True, False, False]
    assert active_units(np.array([[0.3], [0.1]]), threshold=0.2).tolist() == [[True], [False]]


@pytest.mark.slow
def test_an_encoder_that_ignores_an_axis_leaves_it_inactive():
    model = make_model()
    for encoder in model.encoders.values():
        encoder.loc.kernel[...] = encoder.loc.kernel[...].at[:, 1].set(0)
        encoder.loc.bias[...] = encoder.loc.bias[...].at[1].set(7.0)
    means = measure_posterior_means(model, make_dataset())
    for moments in (*means.experts.values(), means.mixture):
        assert active_units(moments.variance).tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("batch_size", "fields"),
    [
        (8, {}),
        (3, {}),
        (8, {"prior_and_posterior_dist": "normal", "aggregation": "mopoe"}),
    ],
)
def test_variances_are_those_over_the_examples_that_have_the_modality(batch_size, fields):
    model, dataset = make_model(**fields), make_dataset()._replace(mask=every_mask())
    means = measure_posterior_means(model, dataset, batch_size=batch_size)
    experts, mask = posteriors(model, mm.Batch(dataset.data, dataset.mask))
    for m, name in enumerate(DIMS):
        own = np.asarray(experts.loc[m])[np.asarray(mask[m])]
        assert means.experts[name].num_rows == len(own) == 4
        np.testing.assert_allclose(means.experts[name].variance, own.var(0), rtol=1e-5)
    some = np.asarray(mask).any(0)
    mixture = mm.encode(
        model,
        mm.Batch(*[{k: v[some] for k, v in x.items()} for x in (dataset.data, dataset.mask)]),
        None,
        return_mean=True,
    )[:, 0]
    assert means.mixture.num_rows == 7
    np.testing.assert_allclose(means.mixture.variance, jnp.var(mixture, 0), rtol=1e-4)
