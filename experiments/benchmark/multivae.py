"""MultiVae's MMVAE or MMVAE+, with MultiVae's networks, as a contender."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.benchmark import host
from experiments.benchmark.cases import (
    LEARNING_RATE,
    LIKELIHOOD,
    LOSS,
    MODEL,
    NLL_CHUNK,
    SCALE,
    Case,
)
from experiments.benchmark.config import BenchmarkConfig
from experiments.benchmark.standin import stand_in_for_torchvision
from experiments.versions import versions

stand_in_for_torchvision()

# These packages are not installed where types are checked.
# ruff: noqa: E402
# pyright: reportMissingImports=false
import torch
from multivae.data.datasets.base import DatasetOutput
from multivae.models import MMVAE, MMVAEConfig, MMVAEPlus, MMVAEPlusConfig
from multivae.models.base.base_config import BaseAEConfig
from multivae.models.nn import default_architectures, mmnist, svhn
from multivae.models.nn.base_architectures import BaseEncoder, BaseMultilatentEncoder
from pythae.models.base.base_utils import ModelOutput

NETWORKS = {
    "mlp": (default_architectures.Encoder_VAE_MLP, default_architectures.Decoder_AE_MLP),
    "svhn": (svhn.Encoder_VAE_SVHN, svhn.Decoder_VAE_SVHN),
    "polymnist": (mmnist.EncoderConvMMNIST_adapted, mmnist.DecoderConvMMNIST),
}


class SplitEncoder(BaseMultilatentEncoder):
    """An encoder of ``[u, w]``, whose outputs are split into shared and private ones."""

    def __init__(self, encoder: BaseEncoder, latent_dim: int, style_dim: int):
        super().__init__()
        self.encoder = encoder
        self.latent_dim, self.style_dim = latent_dim, style_dim

    def forward(self, x: torch.Tensor) -> ModelOutput:
        """Returns location and raw scale of the shared and the private latent."""
        output, sizes = self.encoder(x), (self.latent_dim, self.style_dim)
        loc, style_loc = output.embedding.split(sizes, dim=-1)
        log_var, style_log_var = output.log_covariance.split(sizes, dim=-1)
        return ModelOutput(
            embedding=loc,
            log_covariance=log_var,
            style_embedding=style_loc,
            style_log_covariance=style_log_var,
        )


def build_multivae(case: Case, K: int) -> MMVAE | MMVAEPlus:
    """Returns the case's model, whose images have their channels first."""
    dims = {name: (*spec.dim[2:], *spec.dim[:2]) for name, spec in case.modalities.items()}
    settings = {
        "n_modalities": len(dims),
        "input_dims": dims,
        "latent_dim": case.latent_dim,
        "K": K,
        "decoders_dist": dict.fromkeys(dims, LIKELIHOOD),
        "decoder_dist_params": {name: {"scale": SCALE} for name in dims},
        "loss": LOSS,
        **MODEL,
    }
    encoders, decoders = {}, {}
    for name, spec in case.modalities.items():
        encoder, decoder = NETWORKS[spec.networks]
        sizes = BaseAEConfig(input_dim=dims[name], latent_dim=case.network_dim)
        encoders[name], decoders[name] = encoder(sizes), decoder(sizes)
    if not case.private:
        return MMVAE(MMVAEConfig(**settings), encoders, decoders)
    config = MMVAEPlusConfig(**settings, modalities_specific_dim=case.private)
    split = {m: SplitEncoder(each, case.latent_dim, case.private) for m, each in encoders.items()}
    return MMVAEPlus(config, split, decoders)


def in_half_precision(
    forward: Callable[[torch.Tensor], ModelOutput], device_type: str
) -> Callable[[torch.Tensor], ModelOutput]:
    """Returns a network that computes in bfloat16 and whose outputs are float32.

    Densities stay in float32, as ours do: the gradient hooks of MultiVae's loss need it.
    """

    def run(x: torch.Tensor) -> ModelOutput:
        with torch.autocast(device_type, torch.bfloat16):
            output = forward(x)
        return ModelOutput(**{name: value.float() for name, value in output.items()})

    return run


class MultiVae:
    """MultiVae's training step, or its joint likelihood."""

    def __init__(self, config: BenchmarkConfig):
        torch.manual_seed(config.seed)
        if config.precision is not None:
            allow_tf32 = config.precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = allow_tf32
            torch.backends.cudnn.allow_tf32 = allow_tf32
        self.config = config
        self.device = torch.device("cpu" if config.is_on_cpu else "cuda")
        self.model = build_multivae(config.model_case, config.num_particles).to(self.device)
        if config.dtype == "bfloat16":
            for network in (*self.model.encoders.values(), *self.model.decoders.values()):
                network.forward = in_half_precision(network.forward, self.device.type)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        self.run = {"step": self._step, "nll": self._nll}[config.task]

    def describe(self) -> dict[str, Any]:
        """Returns versions and sizes."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        cpu = f"{host.cpu_name()}, {torch.get_num_threads()} threads"
        return {
            "device": cpu if self.config.is_on_cpu else torch.cuda.get_device_name(),
            "versions": versions("multivae", "torch"),
            "num_parameters": sum(p.numel() for p in trained),
        }

    def repeat(self, images: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Runs a batch, which is on the device before the clock starts."""
        tensors = {m: torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for m, x in images.items()}
        batch = DatasetOutput(data={m: x.to(self.device) for m, x in tensors.items()})
        self._wait()
        start = time.perf_counter()
        metrics = self.run(batch)
        self._wait()
        seconds = time.perf_counter() - start
        peak = None if self.config.is_on_cpu else torch.cuda.max_memory_allocated()
        return {"seconds": seconds, "metrics": metrics, "peak_device_bytes": peak}

    def _wait(self) -> None:
        """Waits for the GPU, which computes while Python goes ahead."""
        if not self.config.is_on_cpu:
            torch.cuda.synchronize()

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
