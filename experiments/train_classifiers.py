"""Classifiers of real examples, by which experiments judge generated ones.

    python -m experiments.train_classifiers --dataset polymnist --out classifiers/polymnist

One for each modality is trained on the training split and scored on the test split: its accuracy
there is a ceiling of every coherence that is measured with it. ``--classifiers`` of the experiments
takes the folder.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import tyro

from experiments import runs
from mmvae_jax.checks import check_count
from mmvae_jax.data.arrays import num_examples
from mmvae_jax.data.files import Folder, Splits
from mmvae_jax.data.mnist import fashion_mnist, mnist
from mmvae_jax.data.mnist_svhn import mnist_svhn
from mmvae_jax.data.polydigits import MAX_MODALITIES, polydigits
from mmvae_jax.data.polymnist import polymnist
from mmvae_jax.data.svhn import svhn
from mmvae_jax.metrics.classifier import train_classifier

#: Each of the data sets shows the ten digits, or ten kinds of garments.
NUM_CLASSES = 10
ACCURACY_FILE = "accuracy.json"


def _polydigits(data_dir: Folder | None) -> Splits:
    """All the modalities that there can be, each the same with however few others."""
    if data_dir is not None:
        raise ValueError(
            f"data_dir is {data_dir}, but polydigits is made from installed files: leave it out"
        )
    dataset = polydigits(MAX_MODALITIES, text=True)
    return Splits(dataset.train, dataset.test)


DATASETS: dict[str, Callable[[Folder | None], Splits]] = {
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "svhn": svhn,
    # One pairing shows no image twice.
    "mnist-svhn": functools.partial(mnist_svhn, num_pairings=1),
    "mnist-svhn-text": functools.partial(mnist_svhn, num_pairings=1, text=True),
    "polymnist": polymnist,
    "polydigits": _polydigits,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Train a classifier of each modality of a data set, and score it on unseen examples."""

    dataset: Literal[
        "mnist",
        "fashion-mnist",
        "svhn",
        "mnist-svhn",
        "mnist-svhn-text",
        "polymnist",
        "polydigits",
    ]
    """What to learn."""
    out: Path
    """Folder to make, which must not hold anything yet."""
    data_dir: Path | None = None
    """Folder of the data sets; without one, that of $MMVAE_DATA, or a download where there is one
    to check."""
    num_steps: int = 3000
    """Training steps of each classifier, of 128 examples."""
    seed: int = 0
    """Of initial parameters and batches."""

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise ValueError(f"dataset is {self.dataset!r}: choose one of {list(DATASETS)}")
        check_count("num_steps", self.num_steps)
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}: give an integer of at least 0")


def command_line() -> None:
    """``main`` of the command line's settings; what is wrong with them is said without a trace."""
    try:
        config = tyro.cli(Config)
        runs.keep_compiled()
        main(config)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def main(config: Config) -> dict[str, float]:
    """Trains the classifiers of a config and writes them to its folder, their accuracies last.

    Returns:
      The share of the test split's examples that are recognised, by modality.

    Raises:
      FileExistsError: if ``out`` holds something.
      FileNotFoundError: if a file of the data set is missing.
      ValueError: if a file of the data set is damaged, or not needed.
    """
    out = config.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"out is {out}, which holds something: choose a new folder")
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
    print(f"{out}: {len(accuracy)} classifiers; {ACCURACY_FILE} says the same")
    return accuracy


def train_all(config: Config, splits: Splits) -> tuple[dict[str, float], dict[str, float]]:
    """Trains, writes and scores one modality after the other, and prints a row for each.

    Returns:
      By modality the accuracy on the test split, and the seconds that it took.
    """
    train, test = splits
    labels, unseen = np.asarray(train.labels), np.asarray(test.labels)
    keys = jax.random.split(jax.random.key(config.seed), len(train.data))
    accuracy: dict[str, float] = {}
    seconds: dict[str, float] = {}
    print(f"{'modality':12}{'accuracy':>9}{'seconds':>9}   of {len(unseen)} unseen examples")
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
    command_line()
