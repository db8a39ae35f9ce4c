"""Model cards say what a model is, and how to load it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.saved_models import CONFIG, arrays_of, default_model, small_model, tied_model

import mmvae_jax as mm
from mmvae_jax.saving.model_card import model_card
from mmvae_jax.saving.pretrained import save_pretrained


def test_card(tmp_path):
    model = default_model(CONFIG.replace(uses_likelihood_rescaling=True))
    metrics = {
        "bound": 1619.0691047179666,
        "coherence": {"a|b": jnp.float32(1 / 3), "c": np.float64(0.25)},
        "hidden": [512],
        "steps": 1500,
    }
    path = save_pretrained(model, tmp_path / "model", metrics=metrics, license="apache-2.0")
    card = (path / "README.md").read_text()
    size = sum(np.prod(shape) for _, shape, _ in arrays_of(model).values())
    for line in (
        'license: "apache-2.0"',
        "library_name: mmvae_jax",
        "# MMVAE of a, b, c",
        "| a | 6 | normal, scale 1 | mmvae_jax.networks.mlp.MLPEncoder "
        "| mmvae_jax.networks.mlp.MLPDecoder |",
        "| loss | adaptive_dreg_looser |",
        "| latent_dim | 4 |",
        "| uses_likelihood_rescaling | True |",
        'model = mm.from_pretrained("model")',
        "| bound | 1619.07 |",
        r"| coherence / a\|b | 0.333333 |",
        "| coherence / c | 0.25 |",
        "| hidden | [512] |",
        "| steps | 1500 |",
    ):
        assert f"\n{line}\n" in card
    assert "| b | 4 x 4 x 1 | laplace, scale 0.75 |" in card
    assert f"with {size:,} parameters" in card
    assert str(tmp_path) not in card


def test_a_card_of_little(tmp_path):
    card = (save_pretrained(small_model(), tmp_path / "model") / "README.md").read_text()
    assert "license" not in card
    assert "## Metrics" not in card
    assert "of the classes above" in card


def test_tied_and_untrained_parameters():
    tied = tied_model()
    config = tied.config.replace(learn_prior=False)
    model = mm.MMVAE(config, tied.encoders, tied.decoders, rngs=nnx.Rngs(0))
    networks = (tied.encoders["caption"], tied.decoders["caption"])
    sizes = [sum(x.size for x in jax.tree.leaves(nnx.state(network))) for network in networks]
    total = sum(sizes) - 9 * 128
    card = model_card(model, "tied", networks={"encoders": {}, "decoders": {}})
    assert f"with {total:,} parameters" in card


def test_the_hub_reads_the_card(tmp_path):
    real = pytest.importorskip("huggingface_hub")
    path = save_pretrained(small_model(), tmp_path / "model", license="cc-by-4.0: \"of\" # 'all'")
    data = real.ModelCard((path / "README.md").read_text()).data
    assert data.license == "cc-by-4.0: \"of\" # 'all'"
    assert data.library_name == "mmvae_jax"
    assert "jax" in data.tags
