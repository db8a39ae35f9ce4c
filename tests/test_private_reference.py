"""MMVAE+ and CMVAE against values that MultiVae computed in float64."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.reference_networks import group, load, networks, torch_gradients

import mmvae_jax as mm
from mmvae_jax.batch import observe
from mmvae_jax.objective import Options, bound_of_batch

FOLDER = Path(__file__).parent / "helpers" / "multivae_reference" / "private"
CASES = json.loads((FOLDER / "index.json").read_text())
FAST = (
    "mmvaeplus-laplace_with_softmax-dreg_looser-masked",
    "mmvaeplus-normal-iwae_looser-complete",
    "cmvae-laplace_with_softmax-iwae_looser-masked",
    "cmvae-normal-dreg_looser-complete",
)
TOLERANCE = {"float64": {"rtol": 1e-8, "atol": 1e-8}, "float32": {"rtol": 2e-4, "atol": 2e-3}}


class Reference:
    """One stored case: its values, and the model, batch and noise that they belong to."""

    def __init__(self, name: str, dtype: str):
        self.values = load(FOLDER / f"{name}.npz", dtype)
        self.case = case = CASES[name]
        data, weights = group(self.values, "data/"), group(self.values, "param/")
        self.names = list(data)
        self.num_clusters = case["number_of_clusters"]
        self.config = mm.MMVAEConfig(
            input_dims={m: x.shape[1:] for m, x in data.items()},
            latent_dim=case["latent_dim"],
            modalities_specific_dim=case["modalities_specific_dim"],
            number_of_clusters=self.num_clusters or 1,
            K=case["K"],
            beta=case["beta"],
            decoders_dist=case["decoders_dist"],
            decoder_dist_params=case["decoder_dist_params"],
            prior_and_posterior_dist=case["prior_and_posterior_dist"],
            learn_prior=self.num_clusters is None,
            loss=case["loss"],
        )
        parts = networks(weights, self.config.input_dims)
        self.model = mm.MMVAE(self.config, *parts, rngs=nnx.Rngs(0))
        self.set_priors(weights)
        self.batch = mm.Batch(data, group(self.values, "mask/") or None)
        self.noise = {m: self.noise_of(m) for m in self.names}

    def set_priors(self, weights):
        model, prefix = self.model, "r_" if self.num_clusters else ""
        for m in self.names:
            raw = weights[f"{prefix}logvars_priors.{m}"][0]
            model.private_log_var[m].set_value(jnp.asarray(raw))
        if not self.num_clusters:
            model.prior_log_var.set_value(jnp.asarray(weights["logvars_priors.shared"][0]))
            return
        model.prior_log_var.set_value(jnp.asarray(weights["w_logvar_prior"][0]))
        values = {"logits": weights["_pc_params"]}
        for ours, theirs in {"loc": "mean_clusters", "log_var": "logvar_clusters"}.items():
            rows = [weights[f"{theirs}.{c}"] for c in range(self.num_clusters)]
            values[ours] = np.concatenate(rows)
        for name, value in values.items():
            model.clusters[name].set_value(jnp.asarray(value))

    def noise_of(self, m: str) -> np.ndarray:
        """The draws of [u, w_1, ..., w_M] for the particles of an expert."""
        values = self.values
        private = [values[f"noise_w/{m}" if j == m else f"noise_r/{m}/{j}"] for j in self.names]
        return np.concatenate([values[f"noise_u/{m}"], *private], axis=-1)

    def torch_gradients(self, grads) -> dict:
        """Our gradient under the reference's names; a sum over examples, as theirs is."""
        flat, prefix = torch_gradients(grads), "r_" if self.num_clusters else ""
        for m in self.names:
            flat[f"{prefix}logvars_priors.{m}"] = grads["private_log_var"][m][...][None]
        if self.num_clusters:
            flat["_pc_params"] = grads["clusters"]["logits"][...]
            for c, row in enumerate(grads["clusters"]["loc"][...]):
                flat[f"mean_clusters.{c}"] = row[None]
        else:
            flat["logvars_priors.shared"] = grads["prior_log_var"][...][None]
        return {name: grad * self.num_examples for name, grad in flat.items()}

    @property
    def num_examples(self) -> int:
        return len(self.values[f"data/{self.names[0]}"])


@pytest.fixture(params=["float64", pytest.param("float32", marks=pytest.mark.slow)])
def dtype(request):
    """Both precisions, each as JAX's default."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture(
    params=[pytest.param(c, marks=() if c in FAST else pytest.mark.slow) for c in CASES]
)
def reference(request, dtype):
    return Reference(request.param, dtype)


def test_log_weights_and_loss(reference, dtype):
    observed = observe(reference.config, reference.batch)
    report = bound_of_batch(reference.model, observed, Options(noise=reference.noise))[1]
    for m, name in enumerate(reference.names):
        ours = np.where(observed.mask[m][None], report.log_w[m], 0)
        expected = reference.values[f"log_weights/{name}"]
        np.testing.assert_allclose(ours, expected, **TOLERANCE[dtype])
    if reference.config.loss == "iwae_looser":
        ours = -report.bound.sum()
    else:  # MultiVae reports the surrogate sum w~ log w
        surrogate = (jax.nn.softmax(report.log_w, axis=1) * report.log_w).sum(1)
        ours = -(jnp.where(observed.mask, surrogate, 0).sum(0) / observed.mask.sum(0)).sum()
    np.testing.assert_allclose(ours, reference.values["loss"], **TOLERANCE[dtype])


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_gradients(reference, dtype, kind):
    backward = mm.Backward(kind, tolerance=0.0, chunk=7)
    _, grads = mm.value_and_grad(
        reference.model, reference.batch, noise=reference.noise, backward=backward
    )
    ours, expected = reference.torch_gradients(grads), group(reference.values, "grad/")
    assert set(expected) == set(ours)
    for name, grad in ours.items():
        np.testing.assert_allclose(grad, expected[name], err_msg=name, **TOLERANCE[dtype])
