"""The cases: what all contenders build, named without JAX or torch."""

from typing import Any, NamedTuple

#: Settings of the model that all cases share, by the names that both packages give them.
MODEL: dict[str, Any] = {
    "prior_and_posterior_dist": "laplace_with_softmax",
    "learn_prior": True,
    "loss": "dreg_looser",
}
LIKELIHOOD, SCALE = "laplace", 0.75
LEARNING_RATE = 1e-3  # of Adam
#: Particles of a joint likelihood, and how many of an example share a decoder call of MultiVae's.
NLL_K, NLL_CHUNK = 1000, 100


class Modality(NamedTuple):
    """Shape of an image, channels last, and the family of its networks."""

    dim: tuple[int, int, int]
    networks: str


class Case(NamedTuple):
    """A model and the size of its steps.

    Attributes:
      modalities: by name, in the order of the experts.
      latent_dim: size of the latent variable.
      K: particles of a step, per expert.
      batch: examples of a step.
      nll_batch: examples of a joint likelihood.
    """

    modalities: dict[str, Modality]
    latent_dim: int
    K: int
    batch: int
    nll_batch: int


DIGIT = Modality((28, 28, 1), "mlp")
SVHN = Modality((32, 32, 3), "svhn")
POLYMNIST = Modality((28, 28, 3), "polymnist")

CASES = {
    "two_mlp": Case({"m0": DIGIT, "m1": DIGIT}, latent_dim=20, K=30, batch=128, nll_batch=128),
    "mnist_svhn": Case(
        {"mnist": DIGIT, "svhn": SVHN}, latent_dim=20, K=30, batch=128, nll_batch=32
    ),
    "polymnist": Case(
        {f"m{m}": POLYMNIST for m in range(5)}, latent_dim=512, K=10, batch=32, nll_batch=32
    ),
}


def with_modalities(case: Case, num_modalities: int) -> Case:
    """The case with so many modalities, all like its first."""
    first = next(iter(case.modalities.values()))
    return case._replace(modalities={f"m{m}": first for m in range(num_modalities)})
