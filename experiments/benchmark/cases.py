"""The benchmark's models and sizes, described without JAX or torch."""

from typing import Any, NamedTuple

#: Settings that all cases share, under the names that mmvae_jax and MultiVae both give them. Both
#: train the scale of the prior by default, except with private latents.
MODEL: dict[str, Any] = {"prior_and_posterior_dist": "laplace_with_softmax"}
#: Loss of both libraries, unless the config says otherwise.
LOSS = "dreg_looser"
LIKELIHOOD, SCALE = "laplace", 0.75
LEARNING_RATE = 1e-3  # of Adam
#: Particles of a joint likelihood, and particles per decoder call of MultiVae's estimate.
NLL_K, NLL_CHUNK = 1000, 100


class ImageSpec(NamedTuple):
    """Shape of an image, channels last, and the family of its networks."""

    dim: tuple[int, int, int]
    networks: str


class Case(NamedTuple):
    """A model and the size of its steps.

    Attributes:
      modalities: image specifications by name, in the order of the experts.
      latent_dim: size of the latent variable, or of its shared part.
      K: particles of a step, per expert.
      batch: examples of a step.
      nll_batch: examples of a joint likelihood.
      private: size of the private latent of each modality, 0 for none.
    """

    modalities: dict[str, ImageSpec]
    latent_dim: int
    K: int
    batch: int
    nll_batch: int
    private: int = 0

    @property
    def network_dim(self) -> int:
        """Size of the latent that encoders and decoders have: the shared and the private one."""
        return self.latent_dim + self.private


DIGIT = ImageSpec((28, 28, 1), "mlp")
SVHN = ImageSpec((32, 32, 3), "svhn")
POLYMNIST = ImageSpec((28, 28, 3), "polymnist")


def polymnist_case(num_modalities: int = 5) -> Case:
    """Returns PolyMNIST's case with any number of modalities."""
    modalities = {f"m{m}": POLYMNIST for m in range(num_modalities)}
    return Case(modalities, latent_dim=512, K=10, batch=32, nll_batch=32)


CASES = {
    "two_mlp": Case({"m0": DIGIT, "m1": DIGIT}, latent_dim=20, K=30, batch=128, nll_batch=128),
    "mnist_svhn": Case(
        {"mnist": DIGIT, "svhn": SVHN}, latent_dim=20, K=30, batch=128, nll_batch=32
    ),
    "polymnist": polymnist_case(),
}
