"""The objective and its gradients against values that MultiVae computed in float64."""

import json
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.reference_networks import group, load, networks, torch_gradients

import mmvae_jax as mm
from mmvae_jax.batch import observe
from mmvae_jax.objective import Options, bound_of_batch

FOLDER = Path(__file__).parent / "helpers" / "multivae_reference"
CASES = json.loads((FOLDER / "index.json").read_text())
# float64 agrees to rounding; float32 carries about 7 digits through sums of a few hundred terms.
TOLERANCE = {"float64": {"rtol": 1e-8, "atol": 1e-8}, "float32": {"rtol": 2e-4, "atol": 2e-3}}


class Reference:
    """One stored case: its values, and the model, batch and noise that they belong to."""

    def __init__(self, name: str, dtype: str):
        self.values = load(FOLDER / f"{name}.npz", dtype)
        case = CASES[name]
        data = self.group("data/")
        self.config = mm.MMVAEConfig(
            input_dims={m: x.shape[1:] for m, x in data.items()},
            latent_dim=case["latent_dim"],
            K=case["K"],
            decoders_dist=case["decoders_dist"],
            decoder_dist_params=case["decoder_dist_params"],
            uses_likelihood_rescaling=case["uses_likelihood_rescaling"],
            prior_and_posterior_dist=case["prior_and_posterior_dist"],
            loss=case["loss"],
        )
        weights = self.group("param/")
        dims = self.config.input_dims
        self.model = mm.MMVAE(self.config, *networks(weights, dims), rngs=nnx.Rngs(0))
        self.model.prior_log_var = nnx.Param(jnp.asarray(weights["prior_log_var"][0]))
        self.batch = mm.Batch(data=data, mask=self.group("mask/") or None)
        self.noise = self.group("noise/")

    def group(self, prefix: str) -> dict:
        return group(self.values, prefix)

    def torch_gradients(self, grads) -> dict:
        """Our gradient under the reference's names; a sum over examples, as theirs is."""
        flat = torch_gradients(grads)
        flat["prior_log_var"] = grads["prior_log_var"][...][None]
        return {name: grad * self.num_examples for name, grad in flat.items()}

    @property
    def num_examples(self) -> int:
        return len(next(iter(self.batch.data.values())))


@pytest.fixture(params=["float64", pytest.param("float32", marks=pytest.mark.slow)])
def dtype(request):
    """Both precisions, each as JAX's default."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture(params=CASES)
def reference(request, dtype):
    return Reference(request.param, dtype)


def log_weights(reference):
    observed = observe(reference.config, reference.batch)
    return bound_of_batch(reference.model, observed, Options(noise=reference.noise))[1]


def test_posteriors(reference, dtype):
    data, mask, _ = observe(reference.config, reference.batch)
    experts = reference.model.experts(data)
    for m, name in enumerate(reference.config.modalities):
        stored = reference.values[f"loc/{name}"], reference.values[f"scale/{name}"]
        chex.assert_trees_all_close(
            (experts.loc[m][mask[m]], experts.scale[m][mask[m]]),
            tuple(value[mask[m]] for value in stored),
            **TOLERANCE[dtype],
        )


def test_log_weights(reference, dtype):
    report = log_weights(reference)
    for m, name in enumerate(reference.config.modalities):
        observed = (reference.batch.mask or {}).get(name, np.ones(reference.num_examples, bool))
        ours = np.where(observed[None], report.log_w[m], 0)
        expected = reference.values[f"log_weights/{name}"]
        np.testing.assert_allclose(ours, expected, **TOLERANCE[dtype])
        assert ours.dtype == dtype


def test_loss_is_minus_the_bound(reference, dtype):
    log_w = jnp.stack([reference.values[f"log_weights/{m}"] for m in reference.config.modalities])
    mask = observe(reference.config, reference.batch).mask
    per_expert = jax.nn.logsumexp(log_w, axis=1) - np.log(reference.config.K)
    per_example = jnp.where(mask, per_expert, 0).sum(0) / mask.sum(0)
    metrics, _ = mm.value_and_grad(reference.model, reference.batch, noise=reference.noise)
    np.testing.assert_allclose(metrics["loss"], -per_example.mean(), **TOLERANCE[dtype])


def test_multivae_loss(reference, dtype):
    """What MultiVae reports: the bound for iwae, the surrogate sum w~ log w for dreg."""
    report = log_weights(reference)
    if reference.config.loss == "iwae_looser":
        ours = -report.bound.sum()
    else:
        mask = observe(reference.config, reference.batch).mask
        surrogate = (jax.nn.softmax(report.log_w, axis=1) * report.log_w).sum(1)
        ours = -(jnp.where(mask, surrogate, 0).sum(0) / mask.sum(0)).sum()
    np.testing.assert_allclose(ours, reference.values["loss"], **TOLERANCE[dtype])


def test_gradients(reference, dtype):
    _, grads = mm.value_and_grad(reference.model, reference.batch, noise=reference.noise)
    ours = reference.torch_gradients(grads)
    expected = reference.group("grad/")
    assert set(expected) - {"prior_mean"} == set(ours)
    for name, grad in ours.items():
        np.testing.assert_allclose(grad, expected[name], err_msg=name, **TOLERANCE[dtype])
