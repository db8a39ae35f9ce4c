"""Converted MultiVae models compute the same as MultiVae."""

import importlib.util
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.multivae_cases import CASES, Stored

import mmvae_jax as mm
from mmvae_jax.interop import load_multivae
from mmvae_jax.interop.settings import convert_settings
from mmvae_jax.maths.prior import shared_log_prob
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.networks.polymnist import PolyMNISTDecoder, PolyMNISTEncoder
from mmvae_jax.networks.svhn import SVHNDecoder, SVHNEncoder
from mmvae_jax.networks.two_latents import TwoLatentEncoder
from mmvae_jax.objective import Options, bound_of_batch

# Both sides compute in float32, which has 7 digits; log weights are sums of thousands of terms.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def cases(*fast):
    """All cases, of which others than these are slow."""
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in CASES]


@pytest.fixture(params=cases(*(name for name in CASES if name != "polymnist_private")))
def stored(request):
    return Stored(request.param)


def test_config(stored):
    """All fields have the values of the case, and dims of images their channels last."""
    ours, given = stored.load().config, CASES[stored.name].config
    last = {(2, 5, 4): (5, 4, 2), (1, 4, 6): (4, 6, 1), (1, 28, 28): (28, 28, 1)}
    last |= {(3, 32, 32): (32, 32, 3), (3, 28, 28): (28, 28, 3)}
    dims = {name: last.get(dim, dim) for name, dim in given["input_dims"].items()}
    given = {"learn_prior" if k == "learn_shared_prior" else k: x for k, x in given.items()}
    assert ours == mm.MMVAEConfig(**{"loss": "dreg_looser", **given, "input_dims": dims})


def test_posteriors(stored):
    """The posteriors of u, and of each modality's own w."""
    model = stored.load()
    data, mask, _ = stored.observed(model)
    experts, own = jax.jit(model.experts)(data), model.config.axes.decoder_input
    ours = [jnp.stack([own(a[m], m) for m in range(len(mask))])[mask] for a in experts]
    expected = [stored.stacked("loc/")[mask], stored.stacked("scale/")[mask]]
    chex.assert_trees_all_close(ours, expected, **TOLERANCE)
    assert np.ptp(expected[1]) > 0.1  # nothing degenerate


def test_log_weights_and_loss(stored):
    """The loss as MultiVae reports it: minus the bound for IWAE, sum w~ log w for DReG."""
    model, noise = stored.load(), stored.group("noise/")
    observed = stored.observed(model)
    options = Options(noise=noise)
    _, report = jax.jit(partial(bound_of_batch, model, observed))(options)
    bound = report.bound
    log_w = np.where(observed.mask[:, None], report.log_w, 0)
    np.testing.assert_allclose(log_w, stored.stacked("log_w/"), **TOLERANCE)
    if model.config.loss == "dreg_looser":
        surrogate = (jax.nn.softmax(report.log_w, axis=1) * report.log_w).sum(1)
        bound = np.where(observed.mask, surrogate, 0).sum(0) / observed.mask.sum(0)
    # MultiVae's weights exp(log w - logsumexp) are off by as much as log w is rounded.
    rounding = np.finfo(np.float32).eps * np.abs(log_w).max()
    np.testing.assert_allclose(-bound.sum(), stored.values["loss"], rtol=1e-6 + rounding)


def test_reconstructions(stored):
    decoded = mm.decode(stored.load(), jnp.asarray(stored.values["z"]))
    chex.assert_trees_all_equal_shapes(decoded, stored.group("decoded/"))
    chex.assert_trees_all_close(decoded, stored.group("decoded/"), **TOLERANCE)


@pytest.mark.parametrize("case", cases("mmvaeplus", "cmvae"))
def test_means_of_latents(case):
    """``encode`` with ``return_mean`` as MultiVae's, given one modality, and all of an MMVAE+."""
    stored = Stored(case)
    model, data = stored.load(), stored.group("data/")
    encoded = stored.group("encoded/")
    assert {*model.config.modalities} <= {*encoded}
    for given, expected in encoded.items():
        z = mm.encode(model, mm.Batch(data), None, cond_mod=given, return_mean=True)
        np.testing.assert_allclose(z[:, 0], expected, **TOLERANCE)


@pytest.mark.parametrize("case", cases("mmvaeplus", "cmvae"))
def test_priors(case):
    """Scales of p(z) and r_m(w), and the clusters of p(u)."""
    stored = Stored(case)
    model, prior = stored.load(), stored.group("prior/")
    ours = {"scale": model.log_var_to_std(model.prior_log_var[...])}
    if clusters := model.prior.clusters:
        ours |= {"weights": jax.nn.softmax(clusters.logits), "cluster_loc": clusters.loc}
        ours["cluster_scale"] = model.log_var_to_std(clusters.log_var)
    chex.assert_trees_all_close(ours, prior, **TOLERANCE)
    raws = nnx.to_pure_dict(nnx.state(model.private_log_var))
    scales = {name: model.log_var_to_std(raw) for name, raw in raws.items()}
    chex.assert_trees_all_close(scales, stored.group("private/"), **TOLERANCE)


PACKAGES_OWN = {
    ("mnist_svhn_text", "encoders", "mnist"): lambda d, r: MLPEncoder((28, 28, 1), d, rngs=r),
    ("mnist_svhn_text", "encoders", "svhn"): lambda d, r: SVHNEncoder(d, rngs=r),
    ("mnist_svhn_text", "decoders", "svhn"): lambda d, r: SVHNDecoder(d, rngs=r),
    ("mnist_svhn_text", "decoders", "text"): lambda d, r: MLPDecoder(d, (4, 9), rngs=r),
    ("polymnist", "encoders", "m0"): lambda d, r: PolyMNISTEncoder(d, rngs=r),
    ("polymnist", "decoders", "m0"): lambda d, r: PolyMNISTDecoder(d, rngs=r),
    ("mmvaeplus", "encoders", "table"): lambda d, r: MLPEncoder((6,), d, hidden=(512,), rngs=r),
    ("mmvaeplus", "decoders", "image"): lambda d, r: MLPDecoder(d, (5, 4, 2), sigmoid=True, rngs=r),
    ("polymnist_private", "encoders", "m1"): lambda d, r: TwoLatentEncoder(
        PolyMNISTEncoder(5, rngs=r), PolyMNISTEncoder(d - 5, rngs=r)
    ),
}


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(n, marks=pytest.mark.slow if n[0] == "polymnist_private" else ())
        for n in PACKAGES_OWN
    ],
    ids=" ".join,
)
def test_networks_are_the_package_s_own(network):
    """Their definitions are equal, so that such networks can be given to ``from_pretrained``."""
    case, side, modality = network
    model = Stored(case).load()
    size = model.config.network_dim(modality)
    made = nnx.eval_shape(lambda: PACKAGES_OWN[network](size, nnx.Rngs(0)))
    assert nnx.split(getattr(model, side)[modality])[0] == nnx.split(made)[0]


@pytest.mark.parametrize("learn_prior", [True, False])
def test_the_prior(small, learn_prior):
    model = small.load(config={**small.config, "learn_prior": learn_prior})
    assert isinstance(model.prior_log_var, nnx.Param) == learn_prior
    np.testing.assert_array_equal(model.prior_log_var[...], small.state["prior_log_var"][0])


@pytest.mark.parametrize("case", ["normal", "mmvaeplus", "cmvae"])
def test_the_parameters_identify_the_model(case):
    """Their names do where the config has none."""
    stored = Stored(case)
    fields = {name: value for name, value in stored.config.items() if name != "name"}
    assert convert_settings(fields, stored.state) == convert_settings(stored.config, {})


def test_trained_priors(private, clusters):
    """A prior of [u, w] trains by ``learn_shared_prior``, and r_m(w) by its own field."""
    assert convert_settings(private.config, {}).config.learn_prior
    fixed = private.load(config={**private.config, "learn_shared_prior": False})
    assert not isinstance(fixed.prior_log_var, nnx.Param)
    assert isinstance(fixed.private_log_var["table"], nnx.Param)
    model = clusters.load()
    assert not isinstance(model.private_log_var["bits"], nnx.Param)
    assert isinstance(model.clusters["loc"], nnx.Param)
    assert not isinstance(model.clusters["log_var"], nnx.Param)


def test_pruned_clusters(clusters):
    """MultiVae's ``prune_clusters`` sets logits to -inf: such clusters have no density."""
    logits = clusters.state["_pc_params"]
    few = clusters.load().prior
    few = few._replace(clusters=jax.tree.map(lambda a: a[1:], few.clusters))
    clusters.state["_pc_params"] = np.where(np.arange(5) == 0, -np.inf, logits)
    model = clusters.load()
    log_prob = partial(shared_log_prob, model.config.family, model.config.axes)
    z = jnp.asarray(clusters.values["z"])[:, :3]
    expected, ours = (
        jax.jit(jax.value_and_grad(lambda z, prior=prior: log_prob(prior, z).sum()))(z)
        for prior in (few, model.prior)
    )
    chex.assert_trees_all_close(ours, expected, **TOLERANCE)


def test_a_scale_to_train(small):
    params = {"image": {"scale": mm.Learned(0.5)}}
    model = small.load(config={**small.config, "decoder_dist_params": params})
    assert model.likelihood_params("image")["scale"] == 0.5
    assert isinstance(model.raw_likelihood_params["image"]["scale"], nnx.Param)
    chex.assert_trees_all_equal(nnx.state(model.decoders), nnx.state(small.load().decoders))


def test_settings_that_multivae_ignores(small):
    """MultiVae's forward knows no beta, and factors only with uses_likelihood_rescaling."""
    with pytest.warns(UserWarning, match="accepts beta and ignores it"):
        assert small.load(config={**small.config, "beta": 2.5}).config.beta == 1
    unused = {**small.config, "uses_likelihood_rescaling": False}
    with pytest.warns(UserWarning, match="ignores rescale_factors without"):
        config = small.load(config=unused).config
    assert config.likelihood_factors == {"image": 1.0, "bits": 1.0}


def test_a_checkpoint_s_dict_is_a_state_dict_too(small):
    wrapped = load_multivae({"model_state_dict": small.state}, small.config)
    chex.assert_trees_all_equal(nnx.state(wrapped), nnx.state(small.load()))


def test_a_module_instead_of_a_class(images):
    """It keeps its parameters; those in the state dict are ignored."""
    module = MLPDecoder(6, (4, 9), hidden=(7,), rngs=nnx.Rngs(3))
    images.state["decoders.text.anything.at.all"] = np.ones(2)
    model = images.load(decoders={**images.classes["decoders"], "text": module})
    chex.assert_trees_all_equal(nnx.state(model.decoders["text"]), nnx.state(module))


@pytest.mark.parametrize("case", cases("default", "mnist_svhn_text", "cmvae"))
def test_a_folder_of_arrays(tmp_path, case):
    stored = Stored(case)
    (tmp_path / "model_config.json").write_text(json.dumps(stored.config))
    np.savez(tmp_path / "model.npz", **stored.state)
    model = load_multivae(tmp_path, **stored.classes)
    chex.assert_trees_all_equal(nnx.state(model), nnx.state(stored.load()))
    assert model.config == stored.load().config
    assert load_multivae(str(tmp_path), {"K": 7}, **stored.classes).config.K == 7


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_tensors_of_pytorch(small, dtype):
    torch = pytest.importorskip("torch")
    precision = getattr(torch, dtype)
    tensors = {name: torch.from_numpy(x).to(precision) for name, x in small.state.items()}
    parameters = {name: torch.nn.Parameter(x) for name, x in tensors.items()}
    kernel = load_multivae(parameters, small.config).decoders["bits"].out.kernel[...]
    assert kernel.dtype == jnp.float32
    expected = tensors["decoders.bits.layers.1.0.weight"].float().numpy().T
    np.testing.assert_array_equal(kernel, expected)


@pytest.mark.slow
def test_multivae_itself(tmp_path):
    """MultiVae computes what is stored, and its folders are read as its state dicts are."""
    pytest.importorskip("torch")
    if importlib.util.find_spec("multivae") is None:
        pytest.skip("multivae is not installed")
    root = Path(__file__).parents[2]
    script = [sys.executable, "tests/helpers/make_multivae_models.py", str(tmp_path)]
    path = os.pathsep.join([str(root), str(root / "tests")])
    subprocess.run(script, cwd=root, env={**os.environ, "PYTHONPATH": path}, check=True)
    for name in CASES:
        stored, made = Stored(name), Stored(name, tmp_path)
        assert made.config == stored.config
        chex.assert_trees_all_close(made.values, stored.values, **TOLERANCE)
        model = load_multivae(tmp_path / name, **stored.classes)
        chex.assert_trees_all_equal(nnx.state(model), nnx.state(stored.load()))
