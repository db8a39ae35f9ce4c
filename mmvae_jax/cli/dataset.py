"""The examples of a table as the model takes them."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Integer, Shaped

import mmvae_jax as mm
from mmvae_jax.cli.choice import check_values, choose_view
from mmvae_jax.cli.tables import Modality, Table
from mmvae_jax.cli.views import View
from mmvae_jax.data.columns import LazyColumn


class Inputs(LazyColumn):
    """Some rows of a modality as the model's input, converted whenever they are read."""

    def __init__(self, modality: Modality, view: View, rows: Int[np.ndarray, " r"]):
        self.modality, self.view, self.rows = modality, view, rows
        self.shape = (len(rows), *view.input_shape)
        self.dtype = view.input_dtype

    def _read(self, rows: Integer[np.ndarray, " b"]) -> Shaped[np.ndarray, "b ..."]:
        chosen = self.rows[rows]
        values = np.asarray(self.modality.values[chosen])
        return self.view.to_input(values, self.modality.observed[chosen])


class Prepared(NamedTuple):
    """Data to train a model on.

    Attributes:
      table: the user's arrays.
      views: how they become the model's input.
      train: examples to train on.
      validation: examples to evaluate on; None if there are to be none.
    """

    table: Table
    views: dict[str, View]
    train: mm.MultimodalArrays
    validation: mm.MultimodalArrays | None


def prepare(
    table: Table, likelihoods: Mapping[str, str], *, validation: float, seed: int
) -> Prepared:
    """Set a share of the rows aside at random, and choose views by the others.

    Raises:
      ValueError: saying which array, row or option is not fit.
    """
    check_names("--likelihood names", likelihoods, table.modalities)
    rows, held_out = split_rows(table.num_rows, validation, seed)
    views = {
        name: choose_view(modality, likelihoods.get(name), rows)
        for name, modality in table.modalities.items()
    }
    validated = examples(table, views, held_out) if len(held_out) else None
    return Prepared(table, views, examples(table, views, rows), validated)


def examples(
    table: Table, views: Mapping[str, View], rows: Int[np.ndarray, " r"]
) -> mm.MultimodalArrays:
    """Rows of a table, with a mask; a modality that it lacks is missing everywhere."""
    data, mask = {}, {}
    for name, view in views.items():
        if name in table.modalities:
            data[name] = Inputs(table.modalities[name], view, rows)
            mask[name] = table.modalities[name].observed[rows]
        else:
            nothing = np.zeros((), view.input_dtype)
            data[name] = np.broadcast_to(nothing, (len(rows), *view.input_shape))
            mask[name] = np.zeros(len(rows), bool)
    return mm.MultimodalArrays(data, None if table.labels is None else table.labels[rows], mask)


def all_examples(table: Table, views: Mapping[str, View]) -> mm.MultimodalArrays:
    """All rows of a table, for a model that is trained already.

    Raises:
      ValueError: if it has modalities that the model does not know, or values unlike those that
        it was trained on.
    """
    check_names(f"{table.path} holds", table.modalities, views)
    for name, modality in table.modalities.items():
        check_values(modality, views[name])
    return examples(table, views, np.arange(table.num_rows))


def check_names(who: str, given: Mapping[str, object], known: Mapping[str, object]) -> None:
    """Raise ValueError unless all names are those of modalities."""
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{who} {unknown}, but the modalities are {list(known)}")


def split_rows(
    num_rows: int, validation: float, seed: int
) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " v"]]:
    """The rows to train on and those to validate on, each in order.

    Raises:
      ValueError: for a share that leaves nothing to train on, or a negative seed.

    >>> [rows.tolist() for rows in split_rows(5, 0.4, seed=0)]
    [[0, 1, 3], [2, 4]]
    """
    if seed < 0:
        raise ValueError(f"--seed is {seed}: give an integer from 0 on")
    size = max(1, round(validation * num_rows)) if validation else 0
    if not (0 <= validation < 1 and size < num_rows):
        raise ValueError(
            f"--validation is {validation} of {num_rows} rows: give a share from 0 to below 1, "
            "which leaves rows to train on"
        )
    order = np.random.default_rng(seed).permutation(num_rows)
    return np.sort(order[size:]), np.sort(order[:size])
