"""Missing modalities: batches of partly given examples, and data sets with hidden modalities.

Hiding changes masks only, never values.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Shaped

from mmvae_jax.batch import (
    AnyBatch,
    Batch,
    MultimodalArrays,
    as_arrays,
    check_names,
)
from mmvae_jax.checks import check_at_least, check_modalities, plain
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.data.arrays import num_examples
from mmvae_jax.inputs.masks import observed_rows, over_axes

Data = TypeVar("Data", Batch, MultimodalArrays)
#: One array or None per example, or None for a whole modality.
Values = Sequence[Any] | np.ndarray | None


def incomplete_batch(config: MMVAEConfig, data: Mapping[str, Values]) -> Batch:
    """Returns a batch of examples that lack some modalities.

    Args:
      config: config of the model.
      data: for each modality a sequence with one entry per example, an array ``[*input_dim]`` or
        None where the modality is missing. None for a modality, or leaving it out, marks it as
        missing everywhere; an array ``[b, *input_dim]`` as observed everywhere. Integers of a
        categorical modality are classes, ``[*input_dim[:-1]]``.

    Returns:
      All modalities of the config, with zeros as placeholders, and a mask.

    Raises:
      ValueError: for unknown modalities, different numbers of examples, wrong shapes, or if no
        example is given.

    >>> config = mm.MMVAEConfig(input_dims={"sound": (3,), "text": (2,)})
    >>> batch = mm.incomplete_batch(config, {"sound": [[0.1, 0.2, 0.3], None], "text": None})
    >>> batch.mask["sound"].tolist(), batch.mask["text"].tolist()
    ([True, False], [False, False])
    """
    check_names("data", data, config)
    given = {name: values for name, values in data.items() if values is not None}
    lengths = {name: len(values) for name, values in given.items()}
    if not any(lengths.values()):
        raise ValueError(
            f"data has no example: give at least one of {list(config.modalities)} a list, with "
            "None for each example that lacks it"
        )
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"data has the numbers of examples {lengths}: give the same one to every modality, "
            "with None for each example that lacks it"
        )
    size = next(iter(lengths.values()))
    columns = {
        name: _filled(config, name, given.get(name, [None] * size)) for name in config.modalities
    }
    return Batch(
        data={name: values for name, (values, _) in columns.items()},
        mask={name: mask for name, (_, mask) in columns.items()},
    )


def _filled(
    config: MMVAEConfig, name: str, values: Sequence[Any] | np.ndarray
) -> tuple[Shaped[np.ndarray, "b *dim"], Bool[np.ndarray, " b"]]:
    """Returns one modality of all examples with zeros as placeholders, and its mask."""
    arrays = [None if value is None else np.asarray(value) for value in values]
    mask = np.array([array is not None for array in arrays], bool)
    given = [array for array in arrays if array is not None]
    dim = config.input_dims[name]
    are_classes = config.likelihood(name)[0] == "categorical" and all(
        np.issubdtype(array.dtype, np.integer) for array in given
    )
    expected = dim[:-1] if given and are_classes else dim
    for example, array in enumerate(arrays):
        if array is not None and array.shape != expected:
            raise ValueError(
                f"data[{name!r}][{example}] is {array.dtype}{list(array.shape)}: give the shape "
                f"{expected}, because input_dims[{name!r}] is {dim}, channels last (without the "
                "last axis for integer classes of a categorical modality)"
            )
    filled = np.zeros((len(arrays), *expected), np.result_type(*given) if given else np.float32)
    if given:
        filled[mask] = given
    return filled, mask


def mask_nan(dataset: Data) -> Data:
    """Masks every NaN of a batch or data set, and leaves all values as they are.

    A modality whose NaN fill whole examples gets a mask of examples, ``[b]``; one with NaN in
    single entries gets a mask of the data's shape. Modalities without NaN keep their mask.

    Args:
      dataset: ``Batch`` or ``MultimodalArrays`` of arrays in memory.

    Returns:
      The same container with the masks.

    >>> sound = np.array([[0.1, np.nan], [0.2, 0.3]], np.float32)
    >>> mm.mask_nan(mm.Batch({"sound": sound})).mask["sound"].tolist()
    [[True, False], [True, True]]
    """
    masks = {}
    for name, x in dataset.data.items():
        size = jax.tree.leaves(x)[0].shape[0]
        mask = np.ones(size, bool) if dataset.mask is None else np.asarray(dataset.mask[name])
        masks[name] = mask
        if not jax.tree_util.all_leaves([x]) or not np.issubdtype(x.dtype, np.floating):
            continue
        there = ~np.isnan(np.asarray(x))
        rows = observed_rows(there)
        if (there | ~over_axes(rows, there.ndim)).all() and mask.ndim == 1:
            masks[name] = mask & rows
        elif not there.all():
            masks[name] = there & over_axes(mask, there.ndim)
    fields = {"mask": masks}
    return dataset.replace(**fields) if isinstance(dataset, Batch) else dataset._replace(**fields)


def missing_at_random(dataset: AnyBatch, share: float, *, seed: int) -> MultimodalArrays:
    """Hides each modality of each example with probability ``share``, but never all of an example.

    Every observed modality of an example draws a uniform number. Numbers below ``share`` hide their
    modality, unless it drew the largest number of the example: at least one of M modalities stays,
    each with the same probability. Each is therefore hidden with probability
    ``share - share^M / M``, and ``share=1`` leaves exactly one modality per example. Modalities
    that were missing before stay missing.

    Args:
      dataset: examples to hide modalities of.
      share: probability in ``[0, 1]``.
      seed: seed of the uniform numbers.

    Raises:
      ValueError: for a share outside ``[0, 1]``, a negative seed, or arrays that do not fit
        together.

    >>> few = mm.missing_at_random(arrays, 1.0, seed=0)  # Leaves one modality per example.
    >>> (few.mask["sound"] ^ few.mask["text"]).all()
    np.True_
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {plain(share)!r}: give a probability, from 0 to 1")
    seed = check_at_least("seed", seed, 0)
    dataset = as_arrays(dataset)
    observed = _mask(dataset)
    draws = np.random.default_rng(seed).random(observed.shape)
    largest = np.where(observed, draws, -1).max(0)
    return _with_mask(dataset, observed & ((draws >= share) | (draws == largest)))


def missing_by_label(dataset: AnyBatch, hidden: Mapping[str, Collection[int]]) -> MultimodalArrays:
    """Hides modality m of all examples whose label is in ``hidden[m]``.

    Modalities that were missing before stay missing.

    Args:
      dataset: examples with labels ``[b]``.
      hidden: labels by modality.

    Raises:
      ValueError: for unknown modalities, arrays that do not fit together, or a data set without
        one label per example. Also if an example would lose its last modality.

    >>> labelled = mm.MultimodalArrays(data, labels=np.arange(5))
    >>> mm.missing_by_label(labelled, {"text": [0, 3]}).mask["text"].tolist()
    [False, True, True, False, True]
    """
    dataset = as_arrays(dataset)
    observed = _mask(dataset)
    check_modalities("hidden", hidden, dataset.data)
    labels = dataset.labels
    if labels is None or labels.ndim != 1:
        found = "None" if labels is None else f"an array of shape {labels.shape}"
        raise ValueError(f"labels is {found}: give one class per example, shape [b]")
    hides = np.stack([np.isin(labels, list(hidden.get(name, ()))) for name in dataset.data])
    left = observed & ~hides
    emptied = np.flatnonzero(observed.any(0) & ~left.any(0))
    if emptied.size:
        raise ValueError(
            f"hidden is {dict(hidden)!r}: keep a modality for each label, because {emptied.size} "
            f"examples of the labels {sorted(set(labels[emptied].tolist()))} would have none"
        )
    return _with_mask(dataset, left)


def _mask(dataset: MultimodalArrays) -> Bool[np.ndarray, "m b"]:
    """Returns the rows that are observed, in the order of the data; all if there is no mask."""
    size = num_examples(dataset)
    if dataset.mask is None:
        return np.ones((len(dataset.data), size), bool)
    return np.stack([observed_rows(dataset.mask[name]) for name in dataset.data])


def _with_mask(dataset: MultimodalArrays, mask: Bool[np.ndarray, "m b"]) -> MultimodalArrays:
    """Returns the data set with these rows; masks of entries stay where their rows do."""
    rows = dict(zip(dataset.data, mask, strict=True))
    for name, old in (dataset.mask or {}).items():
        if old.ndim > 1:
            rows[name] = old & over_axes(rows[name], old.ndim)
    return dataset._replace(mask=rows)
