"""Training of MultiVae's MMVAE on arrays in a folder, in a process without JAX.

    python -m experiments.omics.train_multivae FOLDER

``experiments.omics.multivae`` writes the folder and reads the predictions.
"""

import copy
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmark.standin import stand_in_for_torchvision
from experiments.versions import versions

stand_in_for_torchvision()

# These packages are not installed where types are checked.
# ruff: noqa: E402
# pyright: reportMissingImports=false
import torch
from multivae.data.datasets.base import DatasetOutput
from multivae.models import MMVAE, MMVAEConfig
from multivae.models.nn.default_architectures import BaseDecoder, BaseEncoder
from pythae.models.base.base_utils import ModelOutput
from torch import nn


class Encoder(BaseEncoder):
    """The MLP of ``mmvae_jax.networks.MLPEncoder``."""

    def __init__(self, dim: int, latent_dim: int, hidden: Sequence[int]):
        super().__init__()
        self.latent_dim = latent_dim
        self.hidden = layers(dim, hidden)
        self.loc, self.log_var = (nn.Linear(hidden[-1], latent_dim) for _ in range(2))

    def forward(self, x: torch.Tensor) -> ModelOutput:
        """Returns the location and the raw scale of each row."""
        h = self.hidden(x)
        return ModelOutput(embedding=self.loc(h), log_covariance=self.log_var(h))


class Decoder(BaseDecoder):
    """The MLP of ``mmvae_jax.networks.MLPDecoder``."""

    def __init__(self, latent_dim: int, dim: int, hidden: Sequence[int]):
        super().__init__()
        self.latent_dim = latent_dim
        self.net = nn.Sequential(layers(latent_dim, hidden), nn.Linear(hidden[-1], dim))

    def forward(self, z: torch.Tensor) -> ModelOutput:
        """Returns means or logits of each latent."""
        return ModelOutput(reconstruction=self.net(z))


def layers(dim: int, hidden: Sequence[int]) -> nn.Sequential:
    """Returns dense layers with ReLU of these widths."""
    pairs = itertools.pairwise((dim, *hidden))
    return nn.Sequential(*(m for a, b in pairs for m in (nn.Linear(a, b), nn.ReLU())))


def build(settings: dict[str, Any]) -> MMVAE:
    """Returns the model of the settings that ``experiments.omics.multivae`` writes."""
    dims, latent_dim, hidden = settings["dims"], settings["latent_dim"], settings["hidden"]
    config = MMVAEConfig(
        n_modalities=len(dims),
        input_dims={name: (dim,) for name, dim in dims.items()},
        decoders_dist=settings["likelihoods"],
        decoder_dist_params={
            name: {} if kind == "categorical" else {"scale": settings["scale"]}
            for name, kind in settings["likelihoods"].items()
        },
        prior_and_posterior_dist=settings["posterior"],
        **{name: settings[name] for name in ("latent_dim", "K", "loss", "learn_prior")},
    )
    encoders = {name: Encoder(dim, latent_dim, hidden) for name, dim in dims.items()}
    decoders = {name: Decoder(latent_dim, dim, hidden[::-1]) for name, dim in dims.items()}
    return MMVAE(config, encoders, decoders)


def load(folder: Path, part: str) -> dict[str, dict[str, torch.Tensor]]:
    """Returns the arrays and masks of a part of the rows by modality."""
    found = {}
    for kind in ("data", "masks"):
        with np.load(folder / f"{part} {kind}.npz") as arrays:
            found[kind] = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return found


def batches(num_rows: int, size: int) -> Iterator[torch.Tensor]:
    """Yields the rows of full batches, from one shuffled pass after another."""
    while True:
        yield from torch.randperm(num_rows)[: num_rows // size * size].view(-1, size)


def take(rows: dict[str, dict[str, torch.Tensor]], places: Any) -> DatasetOutput:
    """Returns a batch; MultiVae deletes modalities of it, so that its dicts are new."""
    return DatasetOutput(**{k: {m: x[places] for m, x in v.items()} for k, v in rows.items()})


def train(
    model: MMVAE, folder: Path, settings: dict[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Returns the parameters of the best evaluation, and the course of training."""
    rows, validation = load(folder, "train"), load(folder, "validation")
    num_rows = len(next(iter(rows["data"].values())))
    optimizer = torch.optim.Adam(model.parameters(), lr=settings["learning_rate"])
    best, best_step, best_params = np.inf, 0, copy.deepcopy(model.state_dict())
    order = batches(num_rows, min(settings["batch_size"], num_rows))
    start, step = time.perf_counter(), 0
    for step in range(1, settings["num_steps"] + 1):
        places = next(order)
        optimizer.zero_grad()
        (model(take(rows, places)).loss / len(places)).backward()
        optimizer.step()
        if step % settings["eval_every"] == 0:
            loss = evaluate(model, validation, settings["seed"])
            if loss < best:
                best, best_step, best_params = loss, step, copy.deepcopy(model.state_dict())
            if step - best_step >= settings["patience"] * settings["eval_every"]:
                break
    seconds = round(time.perf_counter() - start, 1)
    return best_params, {"best_step": best_step, "steps": step, "seconds": seconds}


@torch.no_grad()
def evaluate(model: MMVAE, rows: dict[str, dict[str, torch.Tensor]], seed: int) -> float:
    """Returns minus the bound of the rows, with the same particles at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        batch = take(rows, slice(None))
        chosen, model.model_config.loss = model.model_config.loss, "iwae_looser"
        loss = float(model(batch).loss)
        model.model_config.loss = chosen
    return loss


@torch.no_grad()
def mean_latents(
    model: MMVAE, rows: dict[str, dict[str, torch.Tensor]], given: Sequence[str]
) -> torch.Tensor:
    """Returns the mean of the experts of the given modalities that each row observes."""
    weights = torch.stack([rows["masks"][name] for name in given]).float()[..., None]
    loc = torch.stack([model.encoders[name](rows["data"][name]).embedding for name in given])
    return (weights * loc).sum(0) / weights.sum(0)


def main(folder: Path) -> None:
    """Writes ``predicted.npz``, ``latents.npz`` and ``course.json`` into the folder."""
    settings = json.loads((folder / "settings.json").read_text())
    torch.manual_seed(settings["seed"])
    model = build(settings)
    params, course = train(model, folder, settings)
    model.load_state_dict(params)
    views, test = settings["views"], load(folder, "test")
    predicted = {}
    for name in settings["dims"]:
        z = mean_latents(model, test, [view for view in views if view != name])
        with torch.no_grad():
            predicted[name] = model.decoders[name](z).reconstruction.numpy()
    np.savez(folder / "predicted.npz", **predicted)
    parts = {part: load(folder, part) for part in ("all", "test")}
    latents = {part: mean_latents(model, rows, views).numpy() for part, rows in parts.items()}
    np.savez(folder / "latents.npz", **latents)
    course["versions"] = versions("multivae", "torch")
    (folder / "course.json").write_text(json.dumps(course))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
