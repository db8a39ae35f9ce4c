"""MultiVae models for the tests, stored in ``multivae_models`` by ``make_multivae_models``.

Each of CASES has two files. ``<case>.json`` holds the config as MultiVae writes it and the shapes
of the parameters; ``<case>.npz`` holds inputs, noise and MultiVae's results, images channels first.
The parameters themselves are drawn from a fixed seed, there and in the tests.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

import mmvae_jax as mm
from mmvae_jax.batch import Observed, observe
from mmvae_jax.interop import load_multivae

STORED = Path(__file__).parent / "multivae_models"


class Case(NamedTuple):
    """A model: MultiVae's settings, its classes of networks and model, and examples."""

    config: dict
    encoders: dict | None = None
    decoders: dict | None = None
    num_examples: int = 2
    missing: tuple = ()  # (modality, example)
    model: str = "MMVAE"


CASES = {
    # Images of two channels, a table and words. MultiVae's default decoder ends in a sigmoid.
    "default": Case(
        {
            "input_dims": {"image": (2, 5, 4), "table": (6,), "words": (2, 3, 7)},
            "latent_dim": 4,
            "K": 3,
            "decoders_dist": {"image": "laplace", "table": "normal", "words": "categorical"},
            "decoder_dist_params": {"image": {"scale": 0.75}},
            "uses_likelihood_rescaling": True,
        },
        num_examples=4,
        missing=(("image", 1), ("table", 1), ("words", 3)),
    ),
    "normal": Case(
        {
            "input_dims": {"image": (1, 4, 6), "bits": (5,)},
            "latent_dim": 3,
            "K": 4,
            "decoders_dist": {"image": "normal", "bits": "bernoulli"},
            "decoder_dist_params": {"image": {"scale": 0.5}},
            "uses_likelihood_rescaling": True,
            "rescale_factors": {"image": 0.25, "bits": 3.0},
            "prior_and_posterior_dist": "normal",
            "learn_prior": False,
            "loss": "iwae_looser",
        },
        num_examples=4,
    ),
    "mnist_svhn_text": Case(
        {
            "input_dims": {"mnist": (1, 28, 28), "svhn": (3, 32, 32), "text": (4, 9)},
            "latent_dim": 6,
            "K": 2,
            "decoders_dist": {"mnist": "laplace", "svhn": "laplace", "text": "categorical"},
        },
        {"mnist": "Encoder_VAE_MLP", "svhn": "Encoder_VAE_SVHN", "text": "Encoder_VAE_MLP"},
        {"mnist": "Decoder_AE_MLP", "svhn": "Decoder_VAE_SVHN", "text": "CubTextDecoderMLP"},
    ),
    "polymnist": Case(
        {
            "input_dims": {"m0": (3, 28, 28), "m1": (3, 28, 28)},
            "latent_dim": 5,
            "K": 2,
            "decoders_dist": {"m0": "laplace", "m1": "normal"},
            "prior_and_posterior_dist": "normal",
        },
        {"m0": "EncoderConvMMNIST_adapted", "m1": "EncoderConvMMNIST"},
        {"m0": "DecoderConvMMNIST", "m1": "DecoderConvMMNIST"},
    ),
    "mmvaeplus": Case(
        {
            "input_dims": {"image": (2, 5, 4), "table": (6,), "words": (3, 7)},
            "latent_dim": 4,
            "modalities_specific_dim": 3,
            "K": 3,
            "beta": 2.5,
            "decoders_dist": {"image": "laplace", "table": "normal", "words": "categorical"},
            "uses_likelihood_rescaling": True,
            "learn_shared_prior": True,
        },
        num_examples=4,
        missing=(("image", 1), ("table", 1), ("words", 3)),
        model="MMVAEPlus",
    ),
    "cmvae": Case(
        {
            "input_dims": {"image": (1, 4, 6), "bits": (5,)},
            "latent_dim": 3,
            "modalities_specific_dim": 2,
            "number_of_clusters": 5,
            "K": 4,
            "beta": 1.5,
            "decoders_dist": {"image": "normal", "bits": "bernoulli"},
            "decoder_dist_params": {"image": {"scale": 0.5}},
            "prior_and_posterior_dist": "normal",
            "learn_modality_prior": False,
            "reconstruction_option": "single_prior",
            "loss": "iwae_looser",
        },
        num_examples=4,
        model="CMVAE",
    ),
    "polymnist_private": Case(
        {
            "input_dims": {"m0": (3, 28, 28), "m1": (3, 28, 28)},
            "latent_dim": 5,
            "modalities_specific_dim": 3,
            "K": 2,
            "decoders_dist": {"m0": "laplace", "m1": "normal"},
            "prior_and_posterior_dist": "normal_with_softplus",
        },
        {"m0": "EncoderResnetMMNIST", "m1": "EncoderConvMMNIST_multilatents"},
        {"m0": "DecoderResnetMMNIST", "m1": "DecoderConvMMNIST"},
        model="MMVAEPlus",
    ),
}
# Locations of priors, which MultiVae does not train.
LOCATIONS = ("prior_mean", "mean_priors.", "r_mean_priors.", "w_mean_prior")


def make_params(shapes: dict) -> dict[str, np.ndarray]:
    """Parameters of these shapes, drawn from seed 0, twice as large as PyTorch's initial ones.

    ``RandomState`` is the NumPy generator whose numbers never change.
    """
    rng, params = np.random.RandomState(0), {}
    for name, shape in shapes.items():
        bound = 2 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.5
        draw = np.float32(rng.uniform(-bound, bound, shape))
        params[name] = np.zeros_like(draw) if name.startswith(LOCATIONS) else draw
    return params


def make_inputs(case: Case) -> dict[str, np.ndarray]:
    """Examples, masks of the modalities and standard noise of each expert's [u, w_1, ..., w_M]."""
    rng, config, inputs = np.random.RandomState(1), case.config, {}
    is_normal = "normal" in config.get("prior_and_posterior_dist", "")
    num_private = len(config["input_dims"]) * config.get("modalities_specific_dim", 0)
    for name, dim in config["input_dims"].items():
        shape = (case.num_examples, *dim)
        x = rng.randint(0, 17, shape) / 16  # few digits, for small files
        if config["decoders_dist"][name] == "bernoulli":
            x = np.round(x)
        if config["decoders_dist"][name] == "categorical":
            x = np.eye(shape[-1])[x.argmax(-1)]
        inputs[f"data/{name}"] = np.float32(x)
        draw = rng.normal if is_normal else rng.laplace
        shape = (config["K"], case.num_examples, config["latent_dim"] + num_private)
        inputs[f"noise/{name}"] = np.float32(draw(size=shape))
    if case.missing:
        for name in config["input_dims"]:
            seen = [(name, b) not in case.missing for b in range(case.num_examples)]
            inputs[f"mask/{name}"] = np.array(seen)
    return inputs


class Stored:
    """A stored case: MultiVae's config, parameters, inputs and results, images channels last."""

    def __init__(self, name: str, folder: Path = STORED):
        described = json.loads((folder / f"{name}.json").read_text())
        self.name, self.config = name, described["config"]
        self.classes = {"encoders": CASES[name].encoders, "decoders": CASES[name].decoders}
        self.state = make_params(described["shapes"])
        with np.load(folder / f"{name}.npz") as stored:
            self.values = dict(stored)
        for key in ("data", "decoded"):
            for modality, x in self.group(f"{key}/").items():
                if modality in ("image", "mnist", "svhn", "m0", "m1"):
                    self.values[f"{key}/{modality}"] = np.moveaxis(x, 1, 3)

    def group(self, prefix: str) -> dict:
        return {k.removeprefix(prefix): v for k, v in self.values.items() if k.startswith(prefix)}

    def stacked(self, prefix: str) -> np.ndarray:
        return np.stack([*self.group(prefix).values()])

    def load(self, **options) -> mm.MMVAE:
        return load_multivae(self.state, **{"config": self.config, **self.classes, **options})

    def observed(self, model: mm.MMVAE) -> Observed:
        return observe(model.config, mm.Batch(self.group("data/"), self.group("mask/") or None))
