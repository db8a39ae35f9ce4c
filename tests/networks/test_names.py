"""Names of the networks: one place to import them from, and the places that saved models name."""

import importlib

import pytest

import mmvae_jax as mm

#: Modules that ``config.json`` and the model cards of version 0.1 name.
SAVED = {
    "mlp": ["MLPEncoder", "MLPDecoder"],
    "images": ["ConvEncoder", "ConvDecoder"],
    "svhn": ["SVHNEncoder", "SVHNDecoder"],
    "polymnist": ["PolyMNISTEncoder", "PolyMNISTDecoder"],
    "resnet": ["PolyMNISTResNetEncoder", "PolyMNISTResNetDecoder"],
    "text": ["TextEncoder", "TextDecoder"],
    "cub": ["CUBImageEncoder", "CUBImageDecoder", "CUBCaptionEncoder", "CUBCaptionDecoder"],
}


@pytest.mark.parametrize("module", SAVED)
def test_paths_in_saved_models_resolve(module):
    found = importlib.import_module(f"mmvae_jax.networks.{module}")
    for name in SAVED[module]:
        network = getattr(mm.networks, name)
        assert getattr(found, name) is network
        assert (network.__module__, network.__qualname__) == (found.__name__, name)


def test_every_public_name_is_documented():
    assert {name for names in SAVED.values() for name in names} < set(mm.networks.__all__)
    assert all(">>>" in getattr(mm.networks, name).__doc__ for name in mm.networks.__all__)
