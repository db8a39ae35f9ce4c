"""Classifiers of real examples, which experiments use to judge generated examples.

    python -m experiments.train_classifiers --dataset polymnist --out classifiers/polymnist

The program trains one classifier per modality on the training split and measures its accuracy on
the test split. This accuracy is an upper limit of the coherences that the classifier measures. The
experiments take the folder as ``--classifiers``.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from experiments import runs
from experiments.command_line import run_command
from experiments.digit_scenes import mnist_scenes
from mmvae_jax.checks import check_choice, check_count
from mmvae_jax.data import (
    Splits,
    fashion_mnist,
    mnist,
    mnist_svhn,
    num_examples,
    polydigits,
    polymnist,
    svhn,
)
from mmvae_jax.data.datasets.files import Folder
from mmvae_jax.data.datasets.polydigits import MAX_MODALITIES
from mmvae_jax.metrics import train_classifier

#: Number of digits, or of kinds of garments in Fashion-MNIST.
NUM_CLASSES = 10
ACCURACY_FILE = "accuracy.json"


def _polydigits(data_dir: Folder | None) -> Splits:
    """Returns PolyDigits with all modalities; with fewer, the images would be the same."""
    if data_dir is not None:
        raise ValueError(
            f"data_dir is {data_dir}: leave it out, polydigits is made from installed files"
        )
    dataset = polydigits(MAX_MODALITIES, text=True)
    return Splits(dataset.train, dataset.test)


DATASETS: dict[str, Callable[[Folder | None], Splits]] = {
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "svhn": svhn,
    # One pairing: every image occurs at most once.
    "mnist-svhn": functools.partial(mnist_svhn, num_pairings=1),
    "mnist-svhn-text": functools.partial(mnist_svhn, num_pairings=1, text=True),
    "mnist-scenes": functools.partial(mnist_scenes, num_pairings=1),
    "polymnist": polymnist,
    "polydigits": _polydigits,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifiersConfig:
    """Train a classifier of each modality of a data set and measure its test accuracy."""

    dataset: Literal[
        "mnist",
        "fashion-mnist",
        "svhn",
        "mnist-svhn",
        "mnist-svhn-text",
        "mnist-scenes",
        "polymnist",
        "polydigits",
    ]
    """Name of the data set."""
    out: Path
    """Folder of the classifiers, new or empty."""
    data_dir: Path | None = None
    """Folder of the data sets; None is $MMVAE_DATA, or a download where one is offered."""
    num_steps: int = 3000
    """Number of training steps of each classifier, with 128 examples each."""
    seed: int = 0
    """Seed of the initial parameters and the batches."""

    def __post_init__(self) -> None:
        check_choice("dataset", self.dataset, tuple(DATASETS))
        check_count("num_steps", self.num_steps)
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}: give an integer of at least 0")


def main(config: ClassifiersConfig) -> dict[str, float]:
    """Trains the classifiers and writes them to ``out``, then writes their accuracies.

    Returns:
      Accuracy on the test split by modality.

    Raises:
      FileNotFoundError: if a file of the data set is missing.
      ValueError: if ``out`` is not empty, a file of the data set is damaged, or ``data_dir`` is
        given for PolyDigits.
    """
    out = config.out
    runs.check_new_folder(out)
    splits = DATASETS[config.dataset](config.data_dir)
    out.mkdir(parents=True, exist_ok=True)
    accuracy, seconds = train_all(config, splits)
    results = {
        "dataset": config.dataset,
        "num_steps": config.num_steps,
        "seed": config.seed,
        "num_train": num_examples(splits.train),
        "num_test": num_examples(splits.test),
        "accuracy": accuracy,
        "seconds": seconds,
        **runs.provenance(),
    }
    runs.write_json(out / ACCURACY_FILE, results)
    print(f"{out}: {len(accuracy)} classifiers, and their accuracies in {ACCURACY_FILE}")
    return accuracy


def train_all(
    config: ClassifiersConfig, splits: Splits
) -> tuple[dict[str, float], dict[str, float]]:
    """Trains, writes and scores a classifier per modality, and prints a row for each.

    Returns:
      Accuracies on the test split and seconds of computation, both by modality.
    """
    train, test = splits
    labels, unseen = np.asarray(train.labels), np.asarray(test.labels)
    keys = jax.random.split(jax.random.key(config.seed), len(train.data))
    accuracy: dict[str, float] = {}
    seconds: dict[str, float] = {}
    print(f"{'modality':12}{'accuracy':>9}{'seconds':>9}   ({len(unseen)} test examples)")
    for (name, x), key in zip(train.data.items(), keys, strict=True):
        with runs.timed(seconds, name):
            classifier = train_classifier(
                x, labels, num_classes=NUM_CLASSES, key=key, num_steps=config.num_steps
            )
            accuracy[name] = classifier.accuracy(test.data[name], unseen)
        classifier.save(config.out / f"{name}.npz")
        print(f"{name:12}{accuracy[name]:9.4f}{seconds[name]:9.1f}", flush=True)
    return accuracy, seconds


if __name__ == "__main__":
    run_command(runs.process()(main), ClassifiersConfig, "experiments.train_classifiers")
