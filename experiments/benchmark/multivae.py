"""MultiVae's MMVAE, with MultiVae's networks, as a contender; on CPU."""

import time
from typing import Any

from experiments.benchmark import data, host
from experiments.benchmark.cases import (
    LEARNING_RATE,
    LIKELIHOOD,
    MODEL,
    NLL_CHUNK,
    SCALE,
    Case,
)
from experiments.benchmark.config import Config
from experiments.benchmark.standin import stand_in_for_torchvision

stand_in_for_torchvision()

# They are not installed where types are checked.
import torch  # noqa: E402 # pyright: ignore[reportMissingImports]
from multivae.data.datasets.base import (  # noqa: E402 # pyright: ignore[reportMissingImports]
    DatasetOutput,
)
from multivae.models import (  # noqa: E402 # pyright: ignore[reportMissingImports]
    MMVAE,
    MMVAEConfig,
)
from multivae.models.base.base_config import (  # noqa: E402 # pyright: ignore[reportMissingImports]
    BaseAEConfig,
)
from multivae.models.nn import (  # noqa: E402 # pyright: ignore[reportMissingImports]
    default_architectures,
    mmnist,
    svhn,
)

NETWORKS = {
    "mlp": (default_architectures.Encoder_VAE_MLP, default_architectures.Decoder_AE_MLP),
    "svhn": (svhn.Encoder_VAE_SVHN, svhn.Decoder_VAE_SVHN),
    "polymnist": (mmnist.EncoderConvMMNIST_adapted, mmnist.DecoderConvMMNIST),
}


def build_model(case: Case, K: int) -> MMVAE:
    """The case's model; images have their channels first."""
    dims = {name: _channels_first(modality.dim) for name, modality in case.modalities.items()}
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
    for name, modality in case.modalities.items():
        encoder, decoder = NETWORKS[modality.networks]
        dims_of_one = BaseAEConfig(input_dim=dims[name], latent_dim=case.latent_dim)
        encoders[name], decoders[name] = encoder(dims_of_one), decoder(dims_of_one)
    return MMVAE(config, encoders, decoders)


class MultiVae:
    """MultiVae's step, or its joint likelihood."""

    def __init__(self, config: Config):
        torch.manual_seed(config.seed)
        case = config.model_case
        self.config = config
        self.model = build_model(case, config.num_particles)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        self.batches = data.batches(case, config.num_examples, config.seed, config.data_dir)
        self.run = {"step": self._step, "nll": self._nll}[config.task]

    def ready(self) -> dict[str, Any]:
        """What is known before anything has run."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return {
            "device": f"{host.cpu()}, {torch.get_num_threads()} threads",
            "versions": host.versions("multivae", "torch"),
            "num_parameters": sum(p.numel() for p in trained),
        }

    def prepare(self) -> dict[str, Any]:
        """Nothing: its time depends on shapes alone."""
        return {}

    def repeat(self) -> dict[str, Any]:
        """One repetition on a new batch."""
        images = next(self.batches)
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
        nll = self.model.compute_joint_nll(
            batch, K=self.config.num_particles, batch_size_K=NLL_CHUNK
        )
        return {"nll": nll.item() / self.config.num_examples}


def _channels_first(dim: tuple[int, int, int]) -> tuple[int, int, int]:
    height, width, channels = dim
    return channels, height, width
