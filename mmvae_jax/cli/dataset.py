"""The rows of a table as examples of the model."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int, Integer, PRNGKeyArray, Shaped

import mmvae_jax as mm
from mmvae_jax.checks import check_at_least, check_modalities
from mmvae_jax.data import LazyColumn, read_rows
from mmvae_jax.tables.tables import Table, Tables
from mmvae_jax.tables.view_selection import check_values, choose_view
from mmvae_jax.tables.views import View

#: Rows in one call on the device.
ROWS_PER_CALL = 256


class InputColumn(LazyColumn):
    """Rows of a modality as the model's input, converted when they are read."""

    def __init__(self, modality: Table, view: View, rows: Int[np.ndarray, " r"]):
        self.modality, self.view, self.rows = modality, view, rows
        self.shape = (len(rows), *view.input_shape)
        self.dtype = view.input_dtype

    def _read(self, rows: Integer[np.ndarray, " b"]) -> Shaped[np.ndarray, "b ..."]:
        chosen = self.rows[rows]
        values = read_rows(self.modality.values, chosen)
        return self.view.to_input(values, self.modality.observed[chosen])


class TrainingData(NamedTuple):
    """A table, split for training.

    Attributes:
      table: the user's arrays.
      views: conversion of each modality to the model's input.
      train: examples to train on.
      validation: examples to evaluate on; None without any.
    """

    table: Tables
    views: dict[str, View]
    train: mm.MultimodalArrays
    validation: mm.MultimodalArrays | None


def split_for_training(
    table: Tables, likelihoods: Mapping[str, str], *, validation: float, seed: int
) -> TrainingData:
    """Returns the table with a random share of its rows set aside, and views of the other rows.

    Args:
      table: the user's arrays.
      likelihoods: likelihoods by modality; the values decide those of other modalities.
      validation: share of the rows to evaluate on.
      seed: seed of the split.

    Raises:
      ValueError: naming the array, row or option that is wrong.
    """
    check_modalities("--likelihood", likelihoods, table.modalities)
    rows, held_out = split_rows(table.num_rows, validation, seed)
    views = {
        name: choose_view(modality, likelihoods.get(name), rows)
        for name, modality in table.modalities.items()
    }
    validated = make_examples(table, views, held_out) if len(held_out) else None
    return TrainingData(table, views, make_examples(table, views, rows), validated)


def make_examples(
    table: Tables, views: Mapping[str, View], rows: Int[np.ndarray, " r"]
) -> mm.MultimodalArrays:
    """Returns rows of a table with a mask; modalities that the table lacks are all missing."""
    data, mask = {}, {}
    for name, view in views.items():
        if name in table.modalities:
            data[name] = InputColumn(table.modalities[name], view, rows)
            mask[name] = table.modalities[name].observed[rows]
        else:
            placeholder = np.zeros((), view.input_dtype)
            data[name] = np.broadcast_to(placeholder, (len(rows), *view.input_shape))
            mask[name] = np.zeros(len(rows), bool)
    return mm.MultimodalArrays(data, None if table.labels is None else table.labels[rows], mask)


def check_examples(table: Tables, views: Mapping[str, View]) -> mm.MultimodalArrays:
    """Returns all rows of a table as examples of a trained model.

    Raises:
      ValueError: if the model does not know a modality, or was trained on other kinds of values.
    """
    check_modalities(table.place, table.modalities, views)
    for name, modality in table.modalities.items():
        check_values(modality, views[name])
    return make_examples(table, views, np.arange(table.num_rows))


def available_rows(data: mm.MultimodalArrays, given: Sequence[str]) -> Bool[np.ndarray, " n"]:
    """Returns True for the rows that observe one of these modalities or more."""
    assert data.mask is not None, "make_examples gives a mask"
    return np.any([data.mask[name] for name in given], axis=0)


def warn_of_unavailable(
    available: Bool[np.ndarray, " n"], given: Sequence[str], placeholders: str
) -> None:
    """Prints a warning of the rows that observe nothing given, and of what stands in for them."""
    print(
        f"warning: {(~available).sum()} of {len(available)} rows observe nothing of "
        f"{', '.join(given)}: {placeholders}",
        file=sys.stderr,
    )


def device_calls(
    available: Bool[np.ndarray, " n"], seed: int
) -> Iterator[tuple[Int[np.ndarray, " b"], PRNGKeyArray]]:
    """Yields the available rows of each call on the device, and a key for the call."""
    there = np.flatnonzero(available)
    for start in range(0, len(there), ROWS_PER_CALL):
        key = jax.random.fold_in(jax.random.key(seed), start)
        yield there[start : start + ROWS_PER_CALL], key


def split_rows(
    num_rows: int, validation: float, seed: int
) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " v"]]:
    """Returns the rows to train on and the rows to validate on, each in order.

    Raises:
      ValueError: for a share that leaves nothing to train on, or a negative seed.

    >>> [rows.tolist() for rows in split_rows(5, 0.4, seed=0)]
    [[0, 1, 3], [2, 4]]
    """
    check_at_least("--seed", seed, 0)
    size = max(1, round(validation * num_rows)) if validation else 0
    if not (0 <= validation < 1 and size < num_rows):
        raise ValueError(
            f"--validation is {validation} of {num_rows} rows: give a share from 0 to below 1 that "
            "leaves rows to train on"
        )
    order = np.random.default_rng(seed).permutation(num_rows)
    return np.sort(order[size:]), np.sort(order[:size])
