"""One conversion of data for every entry: bytes, booleans, integers, and widths of floats."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mmvae_jax as mm
from mmvae_jax.inputs.model_inputs import model_inputs

KINDS = ("normal", "bernoulli", "laplace", "categorical")
CONFIG = mm.MMVAEConfig(
    input_dims={**dict.fromkeys(KINDS[:3], (2, 2)), "categorical": (3,)},
    decoders_dist={kind: kind for kind in KINDS},
    latent_dim=2,
    K=2,
)
BYTES = np.array([[[0, 255], [51, 102]], [[1, 2], [0, 1]]], np.uint8)
CLASSES = np.array([2, 0])


@pytest.fixture(scope="module")
def model():
    return mm.MMVAE(CONFIG, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("kind", KINDS[:3])
def test_bytes_are_intensities_and_booleans_zeros_and_ones(kind):
    of_bytes = model_inputs(CONFIG, {kind: BYTES})[kind]
    np.testing.assert_allclose(of_bytes, BYTES / 255, rtol=1e-6)
    of_booleans = model_inputs(CONFIG, {kind: BYTES > 50})[kind]
    np.testing.assert_array_equal(of_booleans, np.float32(BYTES > 50))
    assert of_bytes.dtype == of_booleans.dtype == jnp.float32


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, jnp.bfloat16, ">f8"])
def test_one_hot_vectors_of_any_type(dtype):
    one_hot = np.eye(3)[CLASSES]
    found = model_inputs(CONFIG, {"categorical": one_hot.astype(dtype)})["categorical"]
    np.testing.assert_array_equal(found, one_hot)
    assert found.dtype == jnp.float32


def test_integers_of_a_custom_likelihood_are_counts():
    def likelihood(decoded, x):
        return -jnp.square(decoded - x).sum()

    config = CONFIG.replace(decoders_dist={"normal": likelihood}, decoder_dist_params=None)
    found = model_inputs(config, {"normal": BYTES})["normal"]
    np.testing.assert_array_equal(found, BYTES)
    assert found.dtype == jnp.int32  # in which 255 + 1 is 256


def test_every_entry_converts_alike(model):
    """Bytes of the experts were once taken for classes."""
    as_bytes = {kind: BYTES for kind in KINDS[:3]} | {"categorical": CLASSES}
    as_floats = {kind: np.float32(BYTES / 255) for kind in KINDS[:3]}
    as_floats |= {"categorical": np.eye(3, dtype=np.float32)[CLASSES]}
    given, expected = mm.Batch(as_bytes), mm.Batch(as_floats)
    for entry in (
        lambda batch: model.experts(batch.data),
        lambda batch: mm.encode(model, batch, None, return_mean=True),
        lambda batch: mm.metrics.posteriors(model, batch),
    ):
        found, wanted = entry(given), entry(expected)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, wanted)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_data_of_single_precision_with_x64():
    """The loss, its gradient, a step and likelihoods, as with the same data in float64."""
    model = mm.MMVAE(CONFIG, rngs=nnx.Rngs(0))
    value_and_grad = jax.jit(mm.value_and_grad)
    single = {"normal": np.float32(BYTES / 255), "bernoulli": BYTES, "laplace": BYTES > 1}
    single["categorical"] = np.eye(3, dtype=np.float32)[CLASSES]
    double = {name: np.float64(x) for name, x in single.items()} | {"bernoulli": BYTES / 255}
    key = jax.random.key(0)
    results = []
    for data in (single, double):
        batch = mm.Batch(data)
        metrics, grads = value_and_grad(model, batch, jax.random.clone(key))
        state = mm.create_train_state(model, optax.adam(1e-3), key=jax.random.clone(key))
        nll = mm.compute_joint_nll(model, batch, jax.random.clone(key), K=10)
        results.append((metrics["loss"], grads, mm.train_step(state, batch)[1]["loss"], nll))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)
    assert results[0][0].dtype == jnp.float64


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8, bool])
def test_gradients_with_x64_trace_for_data_of_any_type(dtype):
    config = mm.MMVAEConfig(input_dims={"x": (2, 2)}, latent_dim=2, K=2)
    model = mm.MMVAE(config, rngs=nnx.Rngs(0))
    batch = mm.Batch({"x": BYTES.astype(dtype)})
    metrics, _ = jax.eval_shape(mm.value_and_grad, model, batch, jax.random.key(0))
    assert metrics["loss"].dtype == jnp.float64
