"""Coherence: do the modalities that were generated show the class that they should?

The measures of Shi et al. (2019, "Variational mixture-of-experts autoencoders"), and of Sutter et
al. (2021, "Generalized multimodal ELBO") for several given modalities, as functions of the classes
that a classifier of each modality sees in the generated examples.

Two averages: ``micro`` weighs every example alike, ``macro`` every class, however rare.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Array, Bool, Int

#: What a modality was generated from: the name of one modality, or several names.
Given = str | tuple[str, ...]
G = TypeVar("G", bound=str | tuple[str, ...])
Average = Literal["micro", "macro"]
Classes = Int[Array | np.ndarray, " n"]


class Tally(NamedTuple):
    """Examples of each class, and those that show what they should; batches add up by ``merge``.

    Attributes:
      hits: right examples of each class.
      counts: all examples of each class.
    """

    hits: Int[np.ndarray, " classes"]
    counts: Int[np.ndarray, " classes"]

    @property
    def micro(self) -> float:
        """Share of right examples; NaN of none."""
        return float(self.hits.sum() / (self.counts.sum() or np.nan))

    @property
    def macro(self) -> float:
        """Mean over the classes that occur of the share of right examples; NaN of none."""
        seen = self.counts > 0
        return float(np.mean(self.hits[seen] / self.counts[seen])) if seen.any() else float("nan")

    def merge(self, other: "Tally") -> "Tally":
        """What the examples of both add up to."""
        return Tally(self.hits + other.hits, self.counts + other.counts)

    def average(self, average: Average) -> float:
        """The named average."""
        return {"micro": self.micro, "macro": self.macro}[average]


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns every choice of modalities that leaves some to generate, the small ones first.

    >>> subsets(["a", "b", "c"])
    [('a',), ('b',), ('c',), ('a', 'b'), ('a', 'c'), ('b', 'c')]
    """
    sizes = range(1, len(modalities))
    return [given for size in sizes for given in itertools.combinations(modalities, size)]


def tally(hits: Bool[Array | np.ndarray, " n"], classes: Classes, *, num_classes: int) -> Tally:
    """Returns hits and examples of each class.

    Raises:
      ValueError: if a class is not one of ``0, ..., num_classes - 1``.

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
    """Returns the share of generated examples that show the class of what they were given.

    Chance is 1 / C for C equally frequent classes.

    Args:
      predicted: ``predicted[given][generated]``, the class seen in modality ``generated`` when it
        was generated from ``given``, a modality of the same example or several.
      labels: the true class of every example.
      mask: where each modality was observed. Examples that miss a given or the generated
        modality are left out.
      average: over examples (``"micro"``) or classes (``"macro"``).

    Returns:
      The shares, in 0 to 1, under the same names; NaN where no example is left.

    Raises:
      ValueError: if predictions, labels and masks differ in number.

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
    """Returns what ``conditional_coherence`` averages, so that batches can be added up.

    Raises:
      ValueError: if predictions, labels and masks differ in number, or a label is no class.
    """
    labels = np.asarray(labels)

    def of_pair(given: G, generated: str, seen: Classes) -> Tally:
        fields = {f"predicted[{given!r}][{generated!r}]": seen, "labels": labels}
        masks = {} if mask is None else {n: mask[n] for n in {*names(given), generated}}
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
    """Returns the mean of a conditional coherence over all pairs but of a modality with itself.

    Raises:
      ValueError: if there is no such pair.

    >>> cross_coherence_mean({"a": {"a": 1.0, "b": 0.5}, "b": {"a": 0.25, "b": 1.0}})
    0.375
    """
    cross = _cross(coherence)
    if not cross:
        raise ValueError(
            f"coherence has no pair of different modalities, only {sorted(map(str, coherence))} "
            "generated from themselves: generate other modalities too"
        )
    return float(np.mean([share for _, share in cross]))


def coherence_by_size(coherence: Mapping[G, Mapping[str, float]]) -> dict[int, float]:
    """Returns the mean cross coherence for each number of given modalities.

    A model that makes use of all it is given gets better the more that is.

    >>> shares = {("a",): {"b": 0.5, "c": 0.7}, ("b",): {"a": 0.6}, ("a", "b"): {"c": 0.9}}
    >>> {size: round(mean, 3) for size, mean in coherence_by_size(shares).items()}
    {1: 0.6, 2: 0.9}
    """
    by_size: dict[int, list[float]] = {}
    for given, share in _cross(coherence):
        by_size.setdefault(len(names(given)), []).append(share)
    return {size: float(np.mean(shares)) for size, shares in sorted(by_size.items())}


def joint_coherence(predicted: Mapping[str, Classes], *, average: Average = "micro") -> float:
    """Returns the share of examples, generated from the prior, whose modalities all agree.

    Chance is C^(1 - M) for M modalities that show C equally frequent classes independently. A
    model that only ever shows one class scores 1: look at the samples as well, or at the counts
    of ``joint_tally``.

    Args:
      predicted: the class seen in each modality of every example.
      average: over examples (``"micro"``); or over classes (``"macro"``), the share then being
        that of the modalities that show the class whose example agrees.

    Raises:
      ValueError: if there are fewer than two modalities, or they differ in number of examples.

    >>> joint_coherence({"image": np.array([3, 1]), "word": np.array([3, 4])})
    0.5
    """
    num_classes = 1 + max((int(np.max(seen, initial=0)) for seen in predicted.values()), default=0)
    return joint_tally(predicted, num_classes=num_classes).average(average)


def joint_tally(predicted: Mapping[str, Classes], *, num_classes: int) -> Tally:
    """Returns how often modalities show each class, and how often all others show it with them.

    Every modality of every example counts once, so M times as many as there are examples.

    Raises:
      ValueError: as ``joint_coherence``, and for a class that is none of ``num_classes``.
    """
    if len(predicted) < 2:
        raise ValueError(f"predicted names {sorted(predicted)}: agreement needs two modalities")
    _check_lengths({f"predicted[{name!r}]": seen for name, seen in predicted.items()})
    stacked = np.stack([np.asarray(seen) for seen in predicted.values()])
    agree = np.broadcast_to(np.all(stacked == stacked[0], axis=0), stacked.shape)
    return tally(agree.ravel(), stacked.ravel(), num_classes=num_classes)


def names(given: Given) -> tuple[str, ...]:
    """The modalities that are given."""
    return (given,) if isinstance(given, str) else given


def _cross(coherence: Mapping[G, Mapping[str, float]]) -> list[tuple[G, float]]:
    """The shares of modalities that were not given."""
    return [
        (given, share)
        for given, row in coherence.items()
        for generated, share in row.items()
        if generated not in names(given)
    ]


def _check_lengths(arrays: Mapping[str, Array | np.ndarray]) -> None:
    lengths = {field: len(array) for field, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{field} has {length}" for field, length in lengths.items())
        raise ValueError(f"classes differ in number: {listed}; give one per example to each")
