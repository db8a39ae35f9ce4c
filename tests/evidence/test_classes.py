"""Estimated probabilities of the classes of a categorical modality, on a trained model."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import mmvae_jax as mm

NUM_CLASSES = 5


def views(num_rows, seed=0):
    """A class and two noisy views of its centre."""
    rng = np.random.default_rng(seed)
    label = rng.integers(NUM_CLASSES, size=num_rows)
    centres = np.random.default_rng(1).normal(size=(2, NUM_CLASSES, 6))
    first, second = (c[label] + 0.3 * rng.normal(size=(num_rows, 6)) for c in centres)
    return {
        "first": first.astype(np.float32),
        "second": second.astype(np.float32),
        "label": label[:, None].astype(np.int32),
    }


@pytest.fixture(scope="module")
def trained():
    """Laplace posteriors, trained until those of the views are narrow."""
    config = mm.MMVAEConfig(
        input_dims={"first": (6,), "second": (6,), "label": (1, NUM_CLASSES)},
        decoders_dist={"label": "categorical"},
        decoder_dist_params={"first": {"scale": 0.1}, "second": {"scale": 0.1}},
        latent_dim=4,
        K=5,
        loss="iwae_looser",
    )
    model = mm.MMVAE(config, rngs=nnx.Rngs(0))
    state = mm.create_train_state(model, optax.adam(2e-3), key=jax.random.key(0))
    batch = mm.Batch(views(100))
    for _ in range(150):
        state, _ = mm.train_step(state, batch)
    return state.model()


@pytest.mark.slow
@pytest.mark.parametrize("cond_mod", ["label", "first", "all"])
def test_probabilities_of_the_classes_sum_to_one(trained, cond_mod):
    """The mean over keys is within four standard errors of 1, from every proposal."""
    classes = mm.Batch(
        {
            **{name: np.repeat(views(1)[name], NUM_CLASSES, 0) for name in ("first", "second")},
            "label": np.arange(NUM_CLASSES, dtype=np.int32)[:, None],
        }
    )
    sums = []
    for key in jax.random.split(jax.random.key(0), 20):
        nll = mm.compute_marginal_nll(
            trained, classes, key, modality="label", cond_mod=cond_mod, K=1000
        )
        sums.append(np.exp(-np.asarray(nll, np.float64)).sum())
    standard_error = np.std(sums, ddof=1) / np.sqrt(len(sums))
    assert standard_error < 0.05
    assert abs(np.mean(sums) - 1) < 4 * standard_error + 1e-3, (np.mean(sums), standard_error)
