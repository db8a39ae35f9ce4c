"""MultiVae's MMVAE, with MultiVae's networks, as a contender on CPU."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.benchmark import host
from experiments.benchmark.cases import LEARNING_RATE, LIKELIHOOD, MODEL, NLL_CHUNK, SCALE, Case
from experiments.benchmark.config import BenchmarkConfig
from experiments.benchmark.standin import stand_in_for_torchvision
from experiments.versions import versions

stand_in_for_torchvision()

# These packages are not installed where types are checked.
# ruff: noqa: E402
# pyright: reportMissingImports=false
import torch
from multivae.data.datasets.base import DatasetOutput
from multivae.models import MMVAE, MMVAEConfig
from multivae.models.base.base_config import BaseAEConfig
from multivae.models.nn import default_architectures, mmnist, svhn

NETWORKS = {
    "mlp": (default_architectures.Encoder_VAE_MLP, default_architectures.Decoder_AE_MLP),
    "svhn": (svhn.Encoder_VAE_SVHN, svhn.Decoder_VAE_SVHN),
    "polymnist": (mmnist.EncoderConvMMNIST_adapted, mmnist.DecoderConvMMNIST),
}


def build_multivae(case: Case, K: int) -> MMVAE:
    """Returns the case's model, whose images have their channels first."""
    dims = {name: (*spec.dim[2:], *spec.dim[:2]) for name, spec in case.modalities.items()}
    config = MMVAEConfig(
        n_modalities=len(dims),
        input_dims=dims,
        latent_dim=case.latent_dim,
        K=K,
        decoders_dist=dict.fromkeys(dims, LIKELIHOOD),
        decoder_dist_params={name: {"scale": SCALE} for name in dims},
        **MODEL,
    )
    encoders, decoders = {}, {}
    for name, spec in case.modalities.items():
        encoder, decoder = NETWORKS[spec.networks]
        sizes = BaseAEConfig(input_dim=dims[name], latent_dim=case.latent_dim)
        encoders[name], decoders[name] = encoder(sizes), decoder(sizes)
    return MMVAE(config, encoders, decoders)


class MultiVae:
    """MultiVae's training step, or its joint likelihood."""

    def __init__(self, config: BenchmarkConfig):
        torch.manual_seed(config.seed)
        self.config = config
        self.model = build_multivae(config.model_case, config.num_particles)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        self.run = {"step": self._step, "nll": self._nll}[config.task]

    def describe(self) -> dict[str, Any]:
        """Returns versions and sizes."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return {
            "device": f"{host.cpu_name()}, {torch.get_num_threads()} threads",
            "versions": versions("multivae", "torch"),
            "num_parameters": sum(p.numel() for p in trained),
        }

    def repeat(self, images: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Runs a batch."""
        tensors = {m: torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for m, x in images.items()}
        batch = DatasetOutput(data=tensors)
        start = time.perf_counter()
        metrics = self.run(batch)
        return {"seconds": time.perf_counter() - start, "metrics": metrics}

    def _step(self, batch: DatasetOutput) -> dict[str, float]:
        self.optimizer.zero_grad()
        loss = self.model(batch).loss
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item() / self.config.num_examples}

    def _nll(self, batch: DatasetOutput) -> dict[str, float]:
        K = self.config.num_particles
        nll = self.model.compute_joint_nll(batch, K=K, batch_size_K=NLL_CHUNK)
        return {"nll": nll.item() / self.config.num_examples}
