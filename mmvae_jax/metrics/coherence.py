"""Coherence: agreement of generated modalities with the class that they should show.

The measures of Shi et al. (2019, "Variational mixture-of-experts autoencoders") and, for several
given modalities, of Sutter et al. (2021, "Generalized multimodal ELBO"). All are functions of the
classes that a classifier of each modality predicts for generated examples.

There are two averages: ``micro`` weighs every example equally, ``macro`` every class.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Array, Bool, Int

#: Given modalities: one name, or several.
Given = str | tuple[str, ...]
G = TypeVar("G", bound=str | tuple[str, ...])
Average = Literal["micro", "macro"]
Classes = Int[Array | np.ndarray, " n"]


class Tally(NamedTuple):
    """Numbers of examples and of right ones, by class; ``merge`` adds those of two batches.

    Attributes:
      hits: number of right examples of each class.
      counts: number of examples of each class.
    """

    hits: Int[np.ndarray, " classes"]
    counts: Int[np.ndarray, " classes"]

    @property
    def micro(self) -> float:
        """Share of right examples, in 0 to 1; NaN without examples."""
        return float(self.hits.sum() / (self.counts.sum() or np.nan))

    @property
    def macro(self) -> float:
        """Mean share of right examples over the classes that occur; NaN without examples."""
        seen = self.counts > 0
        return float(np.mean(self.hits[seen] / self.counts[seen])) if seen.any() else float("nan")

    @property
    def effective_classes(self) -> float:
        """Effective number of classes of the right examples, the exponential of their entropy.

        ``exp(-sum_c p_c log p_c)`` with ``p_c = hits_c / sum_c hits_c``: from 1, if all right
        examples are of one class, to C, if C classes are equally frequent; 0 without any.
        """
        p = self.hits[self.hits > 0] / max(self.hits.sum(), 1)
        return math.exp(-float(np.sum(p * np.log(p)))) if p.size else 0.0

    def merge(self, other: "Tally") -> "Tally":
        """Returns the numbers of both together."""
        return Tally(self.hits + other.hits, self.counts + other.counts)

    def average(self, average: Average) -> float:
        """Returns ``micro`` or ``macro``."""
        return {"micro": self.micro, "macro": self.macro}[average]


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns all proper subsets of the modalities, small ones first.

    >>> subsets(["a", "b", "c"])
    [('a',), ('b',), ('c',), ('a', 'b'), ('a', 'c'), ('b', 'c')]
    """
    sizes = range(1, len(modalities))
    return [given for size in sizes for given in itertools.combinations(modalities, size)]


def tally(hits: Bool[Array | np.ndarray, " n"], classes: Classes, *, num_classes: int) -> Tally:
    """Returns the number of examples and of hits by class.

    Raises:
      ValueError: if a class lies outside ``0, ..., num_classes - 1``.

    >>> tally(np.array([True, False, True]), np.array([0, 0, 1]), num_classes=2).hits.tolist()
    [1, 1]
    """
    classes = np.asarray(classes)
    if classes.size and not 0 <= classes.min() <= classes.max() < num_classes:
        raise ValueError(
            f"classes run from {classes.min()} to {classes.max()}: with num_classes={num_classes} "
            f"they must lie in 0 to {num_classes - 1}"
        )
    return Tally(
        np.bincount(classes[np.asarray(hits)], minlength=num_classes),
        np.bincount(classes, minlength=num_classes),
    )


def conditional_coherence(
    predicted: Mapping[G, Mapping[str, Classes]],
    labels: Classes,
    *,
    mask: Mapping[str, Bool[Array | np.ndarray, " n"]] | None = None,
    average: Average = "micro",
) -> dict[G, dict[str, float]]:
    """Returns the share of generated examples that show the class of the given example.

    Chance is 1 / C for C equally frequent classes.

    Args:
      predicted: ``predicted[given][generated]``, the class predicted for modality ``generated``,
        generated from the modality or modalities ``given`` of the same example.
      labels: true class of every example.
      mask: True where each modality is observed. Examples that miss a given or the generated
        modality do not count.
      average: ``"micro"`` (over examples) or ``"macro"`` (over classes).

    Returns:
      The shares, in 0 to 1, under the same names; NaN where no example counts.

    Raises:
      ValueError: if predictions, labels and masks differ in length.

    >>> conditional_coherence({"image": {"word": np.array([3, 1])}}, np.array([3, 4]))
    {'image': {'word': 0.5}}
    """
    num_classes = int(np.max(labels, initial=0)) + 1
    tallies = conditional_tallies(predicted, labels, num_classes=num_classes, mask=mask)
    return averages(tallies, average)


def conditional_tallies(
    predicted: Mapping[G, Mapping[str, Classes]],
    labels: Classes,
    *,
    num_classes: int,
    mask: Mapping[str, Bool[Array | np.ndarray, " n"]] | None = None,
) -> dict[G, dict[str, Tally]]:
    """Returns the tallies behind ``conditional_coherence``, which batches can add up.

    Raises:
      ValueError: if predictions, labels and masks differ in length, or a label is not a class.
    """
    labels = np.asarray(labels)

    def of_pair(given: G, generated: str, seen: Classes) -> Tally:
        fields = {f"predicted[{given!r}][{generated!r}]": seen, "labels": labels}
        masks = {} if mask is None else {n: mask[n] for n in {*given_names(given), generated}}
        _check_lengths(fields | {f"mask[{name!r}]": rows for name, rows in masks.items()})
        kept = np.logical_and.reduce([np.ones(len(labels), bool), *map(np.asarray, masks.values())])
        hits = np.asarray(seen) == labels
        return tally(hits[kept], labels[kept], num_classes=num_classes)

    return {
        given: {generated: of_pair(given, generated, seen) for generated, seen in row.items()}
        for given, row in predicted.items()
    }


def averages(
    tallies: Mapping[G, Mapping[str, Tally]], average: Average = "micro"
) -> dict[G, dict[str, float]]:
    """Returns the named average of every tally, under the same names."""
    return {
        given: {generated: counted.average(average) for generated, counted in row.items()}
        for given, row in tallies.items()
    }


def cross_coherence_mean(coherence: Mapping[G, Mapping[str, float]]) -> float:
    """Returns the mean of a conditional coherence over the pairs of different modalities.

    Raises:
      ValueError: if there is no such pair.

    >>> cross_coherence_mean({"a": {"a": 1.0, "b": 0.5}, "b": {"a": 0.25, "b": 1.0}})
    0.375
    """
    cross = _cross(coherence)
    if not cross:
        raise ValueError(
            f"coherence is {dict(coherence)}, with no pair of different modalities: generate other "
            "modalities than the given ones"
        )
    return float(np.mean([share for _, share in cross]))


def coherence_by_size(coherence: Mapping[G, Mapping[str, float]]) -> dict[int, float]:
    """Returns the mean cross coherence for each number of given modalities.

    It rises with that number if the model uses all that it is given.

    >>> shares = {("a",): {"b": 0.5, "c": 0.7}, ("b",): {"a": 0.6}, ("a", "b"): {"c": 0.9}}
    >>> {size: round(mean, 3) for size, mean in coherence_by_size(shares).items()}
    {1: 0.6, 2: 0.9}
    """
    by_size: dict[int, list[float]] = {}
    for given, share in _cross(coherence):
        by_size.setdefault(len(given_names(given)), []).append(share)
    return {size: float(np.mean(shares)) for size, shares in sorted(by_size.items())}


def joint_coherence(predicted: Mapping[str, Classes], *, average: Average = "micro") -> float:
    """Returns the share of examples, generated from the prior, whose modalities all agree.

    Chance is C^(1 - M) for M modalities that show C equally frequent classes independently. A
    model that always shows the same class scores 1, so report ``Tally.effective_classes`` of
    ``joint_tally`` as well.

    Args:
      predicted: class predicted for each modality of every example.
      average: ``"micro"`` (over examples) or ``"macro"`` (over the classes that modalities show).

    Raises:
      ValueError: if there are fewer than two modalities, or they differ in number of examples.

    >>> joint_coherence({"image": np.array([3, 1]), "word": np.array([3, 4])})
    0.5
    """
    num_classes = 1 + max((int(np.max(seen, initial=0)) for seen in predicted.values()), default=0)
    return joint_tally(predicted, num_classes=num_classes).average(average)


def joint_tally(predicted: Mapping[str, Classes], *, num_classes: int) -> Tally:
    """Returns the tally of joint coherence: a hit is a modality with which all others agree.

    Every modality of every example counts once, so ``counts`` sums to M times the number of
    examples.

    Raises:
      ValueError: as in ``joint_coherence``, or if a class is not below ``num_classes``.

    >>> counted = joint_tally({"image": np.array([3, 1]), "word": np.array([3, 4])}, num_classes=5)
    >>> counted.micro, counted.effective_classes
    (0.5, 1.0)
    """
    if len(predicted) < 2:
        raise ValueError(f"predicted is of {sorted(predicted)}: give two modalities or more")
    _check_lengths({f"predicted[{name!r}]": seen for name, seen in predicted.items()})
    stacked = np.stack([np.asarray(seen) for seen in predicted.values()])
    agree = np.broadcast_to(np.all(stacked == stacked[0], axis=0), stacked.shape)
    return tally(agree.ravel(), stacked.ravel(), num_classes=num_classes)


def given_names(given: Given) -> tuple[str, ...]:
    """Returns the names of the given modalities as a tuple."""
    return (given,) if isinstance(given, str) else given


def _cross(coherence: Mapping[G, Mapping[str, float]]) -> list[tuple[G, float]]:
    """Returns the shares of modalities generated from other ones."""
    return [
        (given, share)
        for given, row in coherence.items()
        for generated, share in row.items()
        if generated not in given_names(given)
    ]


def _check_lengths(arrays: Mapping[str, Array | np.ndarray]) -> None:
    lengths = {field: len(array) for field, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{field} has {length}" for field, length in lengths.items())
        raise ValueError(f"lengths differ: {listed}; give one class or bool per example")
