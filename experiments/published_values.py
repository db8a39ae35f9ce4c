"""Published results of runs with the settings of our presets."""

from typing import NamedTuple


class PublishedValue(NamedTuple):
    """A published value.

    Attributes:
      experiment: name of the experiment on the same data set.
      preset: name of the preset with the settings of the source.
      metric: path of our metric in ``metrics.json``, with ``/`` between names.
      value: the value as printed in the source; accuracies and coherences are in 0 to 1.
      source: citation; values with the same source share a row of a report.
    """

    experiment: str
    preset: str
    metric: str
    value: float
    source: str


_SHI = "Shi et al. 2019, Tables 2 and 3"
_MULTIVAE_POLY = "MultiVae's benchmark, batch size 32, mean of 4 seeds"
_PALUMBO = "Palumbo et al. 2023, Table 1"
_PALUMBO_2024 = "Palumbo et al. 2024"
_MULTIVAE_README = "MultiVae's README, its reproduction"
_HWANG = "Hwang et al. 2021, a figure"

_PAIR = "conditional_coherence_pairs"

PUBLISHED = (
    PublishedValue("mnist_svhn", "paper", f"{_PAIR}/mnist/svhn", 0.864, _SHI),
    PublishedValue("mnist_svhn", "paper", f"{_PAIR}/svhn/mnist", 0.691, _SHI),
    PublishedValue("mnist_svhn", "paper", "joint_coherence", 0.421, _SHI),
    PublishedValue("mnist_svhn", "paper", "latent_probe_modalities/mnist", 0.913, _SHI),
    PublishedValue("mnist_svhn", "paper", "latent_probe_modalities/svhn", 0.680, _SHI),
    PublishedValue("mnist_svhn", "paper", f"{_PAIR}/mnist/svhn", 0.88, _MULTIVAE_README),
    PublishedValue("mnist_svhn", "paper", f"{_PAIR}/svhn/mnist", 0.67, _MULTIVAE_README),
    PublishedValue("mnist_svhn", "paper", "joint_coherence", 0.41, _MULTIVAE_README),
    PublishedValue("polymnist", "multivae", "conditional_coherence", 0.805, _MULTIVAE_POLY),
    PublishedValue("polymnist", "multivae", "joint_coherence", 0.216, _MULTIVAE_POLY),
    PublishedValue("polymnist", "multivae", "conditional_coherence", 0.71, _HWANG),
    PublishedValue("polymnist", "mmvae", "conditional_coherence", 0.844, _PALUMBO),
    PublishedValue("polymnist", "mmvae", "joint_coherence", 0.232, _PALUMBO),
    PublishedValue("polymnist", "mmvaeplus", "conditional_coherence", 0.869, _PALUMBO),
    PublishedValue("polymnist", "mmvaeplus", "conditional_coherence", 0.886, _MULTIVAE_README),
    PublishedValue("polymnist", "cmvae", "conditional_coherence", 0.897, _PALUMBO_2024),
    PublishedValue("polymnist", "cmvae", "joint_coherence", 0.781, _PALUMBO_2024),
    PublishedValue("polymnist", "cmvae", "conditional_coherence", 0.886, _MULTIVAE_README),
    PublishedValue("polymnist", "cmvae", "joint_coherence", 0.764, _MULTIVAE_README),
)


def published_for(experiment: str, preset: str) -> tuple[PublishedValue, ...]:
    """Returns the published values for an experiment with the settings of a preset."""
    return tuple(p for p in PUBLISHED if (p.experiment, p.preset) == (experiment, preset))
