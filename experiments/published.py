"""Published results, to set beside those of runs with the same settings."""

from typing import NamedTuple


class Published(NamedTuple):
    """A published value.

    Attributes:
      experiment: the experiment of the same data set.
      preset: its settings that are those of the source.
      metric: where ``metrics.json`` has its own such value, with ``/`` between names.
      value: as printed in the source; shares lie in 0 to 1.
      source: in words, the same for all the values that share a row.
    """

    experiment: str
    preset: str
    metric: str
    value: float
    source: str


_SHI = "Shi et al. 2019, Tables 2 and 3"
_MULTIVAE_SVHN = "MultiVae's README, its reproduction"
_MULTIVAE_POLY = "MultiVae's benchmark, batch size 32, mean of 4 seeds"
_PALUMBO = "Palumbo et al. 2023, Table 1"
_HWANG = "Hwang et al. 2021, a figure"

_PAIR = "conditional_coherence_pairs"

PUBLISHED = (
    Published("mnist_svhn", "paper", f"{_PAIR}/mnist/svhn", 0.864, _SHI),
    Published("mnist_svhn", "paper", f"{_PAIR}/svhn/mnist", 0.691, _SHI),
    Published("mnist_svhn", "paper", "joint_coherence", 0.421, _SHI),
    Published("mnist_svhn", "paper", "latent_probe_modalities/mnist", 0.913, _SHI),
    Published("mnist_svhn", "paper", "latent_probe_modalities/svhn", 0.680, _SHI),
    Published("mnist_svhn", "paper", f"{_PAIR}/mnist/svhn", 0.88, _MULTIVAE_SVHN),
    Published("mnist_svhn", "paper", f"{_PAIR}/svhn/mnist", 0.67, _MULTIVAE_SVHN),
    Published("mnist_svhn", "paper", "joint_coherence", 0.41, _MULTIVAE_SVHN),
    Published("polymnist", "multivae", "conditional_coherence", 0.805, _MULTIVAE_POLY),
    Published("polymnist", "multivae", "joint_coherence", 0.216, _MULTIVAE_POLY),
    Published("polymnist", "multivae", "conditional_coherence", 0.71, _HWANG),
    Published("polymnist", "mmvaeplus", "conditional_coherence", 0.844, _PALUMBO),
    Published("polymnist", "mmvaeplus", "joint_coherence", 0.232, _PALUMBO),
)


def published_for(experiment: str, preset: str) -> tuple[Published, ...]:
    """Returns what was published for an experiment with the settings of a preset."""
    return tuple(p for p in PUBLISHED if (p.experiment, p.preset) == (experiment, preset))
