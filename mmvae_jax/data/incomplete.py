"""Missing modalities: batches of examples given in part, and data sets that hide some.

Nothing here changes a value: a modality is hidden by its mask alone.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from mmvae_jax.batch import AnyBatch, Batch, MultimodalArrays, as_arrays, check_names
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.data.arrays import num_examples

# None, or one array or None per example.
Values = Sequence[Any] | np.ndarray | None


def incomplete_batch(config: MMVAEConfig, data: Mapping[str, Values]) -> Batch:
    """The batch of examples of which some modalities are missing.

    Args:
      config: of the model.
      data: for each modality, what every example has of it: an array ``[*input_dim]``, or None
        where it is missing. None for a whole modality, or leaving it out, says that all examples
        miss it; an array ``[b, *input_dim]`` that none does. Integers of a categorical modality
        are classes, ``[*input_dim[:-1]]``.

    Returns:
      Every modality of the config, with zeros in the missing places and a mask.

    Raises:
      ValueError: for unknown names, different numbers of examples, wrong shapes, or if there is
        no example.

    >>> config = MMVAEConfig(input_dims={"sound": (3,), "text": (2,)})
    >>> batch = incomplete_batch(config, {"sound": [[0.1, 0.2, 0.3], None], "text": None})
    >>> batch.mask["sound"].tolist(), batch.mask["text"].tolist()
    ([True, False], [False, False])
    """
    check_names("data", data, config)
    given = {name: values for name, values in data.items() if values is not None}
    lengths = {name: len(values) for name, values in given.items()}
    if not any(lengths.values()):
        raise ValueError(
            f"data gives no example of any of {list(config.modalities)}: give at least one of them "
            "a list, with None for the examples that miss it"
        )
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"data has the numbers of examples {lengths}: give the same one to every modality, "
            "with None for an example that misses it"
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
    """One modality of every example, zeros where it is missing, and where it is not."""
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
                f"data[{name!r}][{example}] has shape {array.shape} and dtype {array.dtype}, "
                f"expected shape {expected}: input_dims[{name!r}] is {dim}, channels last (less "
                "the last axis for a categorical modality of integer classes)"
            )
    filled = np.zeros((len(arrays), *expected), np.result_type(*given) if given else np.float32)
    if given:
        filled[mask] = given
    return filled, mask


def missing_at_random(dataset: AnyBatch, share: float, *, seed: int) -> MultimodalArrays:
    """Hide each modality of each example with probability ``share``, but never all of an example.

    Every observed modality of an example draws a uniform number; those below ``share`` are hidden,
    except that the largest draw always stays: where all M would go, one stays, any with the same
    probability. So a modality is hidden with probability ``share - share^M / M``, and
    ``share=1`` leaves exactly one to each example. What was missing before stays missing.

    Raises:
      ValueError: for a share outside ``[0, 1]``, a negative seed, or arrays that do not fit
        together.

    >>> few = mm.missing_at_random(arrays, 1.0, seed=0)  # one modality of each example is left
    >>> (few.mask["sound"] ^ few.mask["text"]).all()
    np.True_
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share!r}: give a probability, from 0 to 1")
    if seed < 0:
        raise ValueError(f"seed is {seed!r}: give a non-negative integer")
    dataset = as_arrays(dataset)
    observed = _mask(dataset)
    draws = np.random.default_rng(seed).random(observed.shape)
    largest = np.where(observed, draws, -1).max(0)
    return _with_mask(dataset, observed & ((draws >= share) | (draws == largest)))


def missing_by_label(dataset: AnyBatch, hidden: Mapping[str, Collection[int]]) -> MultimodalArrays:
    """Hide modality m of the examples whose label is in ``hidden[m]``.

    What was missing before stays missing.

    Raises:
      ValueError: for unknown modalities, a data set without one label per example, arrays that do
        not fit together, or if an example would have nothing left.

    >>> labelled = mm.MultimodalArrays(data, labels=np.arange(5))
    >>> mm.missing_by_label(labelled, {"text": [0, 3]}).mask["text"].tolist()
    [False, True, True, False, True]
    """
    dataset = as_arrays(dataset)
    observed = _mask(dataset)
    unknown = [name for name in hidden if name not in dataset.data]
    if unknown:
        raise ValueError(
            f"hidden names the unknown modalities {unknown}: known are {list(dataset.data)}"
        )
    labels = dataset.labels
    if labels is None or labels.ndim != 1:
        found = "None" if labels is None else f"an array of shape {labels.shape}"
        raise ValueError(f"labels is {found}: give one class per example, shape [b]")
    goes = np.stack([np.isin(labels, list(hidden.get(name, ()))) for name in dataset.data])
    left = observed & ~goes
    emptied = np.flatnonzero(observed.any(0) & ~left.any(0))
    if emptied.size:
        raise ValueError(
            f"hidden is {dict(hidden)!r}, which leaves nothing to {emptied.size} examples, whose "
            f"labels are {sorted(set(labels[emptied].tolist()))}: keep a modality for each label"
        )
    return _with_mask(dataset, left)


def _mask(dataset: MultimodalArrays) -> Bool[np.ndarray, "m b"]:
    """What is observed, in the order of the data; all True without a mask."""
    size = num_examples(dataset)
    if dataset.mask is None:
        return np.ones((len(dataset.data), size), bool)
    return np.stack([dataset.mask[name] for name in dataset.data])


def _with_mask(dataset: MultimodalArrays, mask: Bool[np.ndarray, "m b"]) -> MultimodalArrays:
    return dataset._replace(mask=dict(zip(dataset.data, mask, strict=True)))
