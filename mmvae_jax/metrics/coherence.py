"""Coherence: do the modalities that were generated show the class that they should?

The measures of Shi et al. (2019, "Variational mixture-of-experts autoencoders"), as functions of
the classes that a classifier of each modality sees in the generated examples.
"""

import numpy as np
from jaxtyping import Array, Int


def conditional_coherence(
    predicted: dict[str, dict[str, Int[Array | np.ndarray, " n"]]],
    labels: Int[Array | np.ndarray, " n"],
) -> dict[str, dict[str, float]]:
    """Returns the share of generated examples that show the class of what they were given.

    Chance is 1 / C for C equally frequent classes.

    Args:
        predicted: `predicted[given][generated]`, the class seen in modality `generated` when it
            was generated from modality `given` of the same example.
        labels: the true class of every example.

    Returns:
        The shares, in 0 to 1, under the same names.

    Raises:
        ValueError: if predictions and labels differ in number.

    >>> conditional_coherence({"image": {"word": np.array([3, 1])}}, np.array([3, 4]))
    {'image': {'word': 0.5}}
    """
    return {
        given: {
            generated: _agreement({f"predicted[{given!r}][{generated!r}]": seen, "labels": labels})
            for generated, seen in row.items()
        }
        for given, row in predicted.items()
    }


def cross_coherence_mean(coherence: dict[str, dict[str, float]]) -> float:
    """Returns the mean of a conditional coherence over the pairs of two different modalities.

    Raises:
        ValueError: if there is no such pair.

    >>> cross_coherence_mean({"a": {"a": 1.0, "b": 0.5}, "b": {"a": 0.25, "b": 1.0}})
    0.375
    """
    cross = [
        share
        for given, row in coherence.items()
        for generated, share in row.items()
        if generated != given
    ]
    if not cross:
        raise ValueError(
            f"coherence has no pair of different modalities, only {sorted(coherence)} generated "
            "from themselves: generate other modalities too"
        )
    return float(np.mean(cross))


def joint_coherence(predicted: dict[str, Int[Array | np.ndarray, " n"]]) -> float:
    """Returns the share of examples, generated from the prior, whose modalities all agree.

    Chance is C^(1 - M) for M modalities that show C equally frequent classes independently. A
    model that only ever shows one class scores 1: look at the samples as well.

    Args:
        predicted: the class seen in each modality of every example.

    Raises:
        ValueError: if there are fewer than two modalities, or they differ in number of examples.

    >>> joint_coherence({"image": np.array([3, 1]), "word": np.array([3, 4])})
    0.5
    """
    if len(predicted) < 2:
        raise ValueError(f"predicted names {sorted(predicted)}: agreement needs two modalities")
    return _agreement({f"predicted[{name!r}]": seen for name, seen in predicted.items()})


def _agreement(classes: dict[str, Int[Array | np.ndarray, " n"]]) -> float:
    """Returns the share of positions at which all the vectors hold the same class."""
    lengths = {field: len(seen) for field, seen in classes.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{field} has {length}" for field, length in lengths.items())
        raise ValueError(f"classes differ in number: {listed}; give one per example to each")
    stacked = np.stack([np.asarray(seen) for seen in classes.values()])
    return float(np.mean(np.all(stacked == stacked[0], axis=0)))
