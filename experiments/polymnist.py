"""PolyMNIST: five images of one digit, each on a different photograph.

    python -m experiments.polymnist --help
    python -m experiments.polymnist cmvae --data-dir FOLDER --seeds 0 1 2

The model is an MMVAE, with private latents an MMVAE+ (Palumbo et al. 2023), and with clusters as
well a CMVAE (Palumbo et al. 2024). The data set is read from FOLDER/polymnist;
``python -m experiments.make_polymnist`` creates it.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

from flax import nnx

import mmvae_jax as mm
from experiments.experiment import Experiment, ExperimentData, Modules, is_count, some_rows
from experiments.run_experiment import run_from_command_line
from mmvae_jax.checks import check_choice, check_positive
from mmvae_jax.data import polymnist, take
from mmvae_jax.data.datasets.polymnist import IMAGE_SHAPE, NUM_MODALITIES
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.networks.polymnist import PolyMNISTDecoder, PolyMNISTEncoder
from mmvae_jax.networks.resnet import PolyMNISTResNetDecoder, PolyMNISTResNetEncoder
from mmvae_jax.networks.two_latents import TwoLatentEncoder

#: Constructors of an encoder and a decoder by name; both take the number of latents and ``rngs``.
NETWORKS = {
    "mlp": (
        lambda d, rngs: MLPEncoder(IMAGE_SHAPE, d, hidden=(512,), rngs=rngs),
        lambda d, rngs: MLPDecoder(d, IMAGE_SHAPE, hidden=(512,), sigmoid=True, rngs=rngs),
    ),
    "conv": (PolyMNISTEncoder, PolyMNISTDecoder),
    "resnet": (PolyMNISTResNetEncoder, PolyMNISTResNetDecoder),
}
#: Number of training examples for latent probes.
NUM_PROBE = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolyMNISTConfig(Experiment):
    """Train a model on PolyMNIST, measure it on test digits and draw figures."""

    name: ClassVar[str] = "polymnist"
    num_classes: ClassVar[int] = 10

    modalities: int = NUM_MODALITIES
    """Number of images per example, 2 to 5."""
    networks: Literal["mlp", "conv", "resnet"] = "conv"
    """A dense layer of 512, convolutions (Sutter et al. 2021) or ResNets (Palumbo et al. 2023)."""
    scale: float = 0.75
    """Scale of the Laplace likelihood."""
    separate_encoders: bool = False
    """Encode the private latents by networks of their own kind, as MMVAE+ does."""
    learn_prior: bool = False
    latent_dim: int = 512
    K: int = 10
    batch_size: int = 256
    num_epochs: int | None = 100
    out: Path = Path("runs/polymnist")

    def __post_init__(self) -> None:
        super().__post_init__()
        is_offered = is_count(self.modalities, 2) and self.modalities <= NUM_MODALITIES
        self.check("modalities", is_offered, f"give an integer from 2 to {NUM_MODALITIES}")
        check_choice("networks", self.networks, tuple(NETWORKS))
        check_positive("scale", self.scale)
        has_both = self.modalities_specific_dim > 0 or not self.separate_encoders
        self.check("separate_encoders", has_both, "give --modalities-specific-dim above 0")

    def load(self) -> ExperimentData:
        """Returns PolyMNIST as found in ``data_dir``."""
        train, test = polymnist(self.data_dir, num_modalities=self.modalities)
        return ExperimentData(train, test, take(train, some_rows(train, NUM_PROBE)))

    def model_config(self) -> mm.MMVAEConfig:
        """Returns a config with Laplace images, not rescaled."""
        names = [f"m{m}" for m in range(self.modalities)]
        return mm.MMVAEConfig(
            input_dims=dict.fromkeys(names, IMAGE_SHAPE),
            decoders_dist=dict.fromkeys(names, "laplace"),
            decoder_dist_params={name: {"scale": self.scale} for name in names},
            **self.model_settings(),
        )

    def make_networks(self, rngs: nnx.Rngs) -> tuple[Modules, Modules]:
        """Returns networks of the chosen kind, one pair per modality."""
        encoder, decoder = NETWORKS[self.networks]
        sizes = [self.latent_dim, self.modalities_specific_dim]
        sizes = sizes if self.separate_encoders else [sum(sizes)]
        encoders, decoders = {}, {}
        for name in self.model_config().modalities:
            parts = [encoder(size, rngs=rngs) for size in sizes]
            encoders[name] = TwoLatentEncoder(*parts) if self.separate_encoders else parts[0]
            decoders[name] = decoder(self.network_dim, rngs=rngs)
        return encoders, decoders


#: Settings that MMVAE+ and CMVAE share.
MMVAEPLUS = PolyMNISTConfig(
    networks="resnet",
    separate_encoders=True,
    latent_dim=32,
    modalities_specific_dim=32,
    K=1,
    loss="iwae_looser",
    beta=2.5,
)

PRESETS = {
    "multivae": (
        "MMVAE in MultiVae's benchmark: K=10, 512 latents, 100 epochs, Adam.",
        PolyMNISTConfig(preset="multivae", loss="dreg_looser", amsgrad=False),
    ),
    "mmvae": (
        "Like the MMVAE baseline of MMVAE+: ResNets, one particle, 160 latents, AMSGrad.",
        PolyMNISTConfig(
            preset="mmvae",
            networks="resnet",
            latent_dim=160,
            K=1,
            loss="elbo",
            batch_size=128,
            num_epochs=150,
        ),
    ),
    "mmvaeplus": (
        "MMVAE+ as reproduced by MultiVae: 32 shared and 32 private latents, 150 epochs.",
        dataclasses.replace(MMVAEPLUS, preset="mmvaeplus", batch_size=32, num_epochs=150),
    ),
    "cmvae": (
        "CMVAE as reproduced by MultiVae: MMVAE+ with a prior of 40 clusters, 250 epochs.",
        dataclasses.replace(
            MMVAEPLUS, preset="cmvae", number_of_clusters=40, batch_size=128, num_epochs=250
        ),
    ),
    "small": (
        "About an hour on two CPU cores: dense networks, 16 latents, K=3, scale 0.2.",
        PolyMNISTConfig(
            preset="small",
            networks="mlp",
            latent_dim=16,
            K=3,
            scale=0.2,
            batch_size=32,
            num_epochs=10,
        ),
    ),
}

if __name__ == "__main__":
    run_from_command_line(PRESETS)
