"""The rows of tables as examples of the model."""

import warnings
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int, Integer, Shaped

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_at_least, check_modalities, check_share
from mmvae_jax.data.columns import LazyColumn
from mmvae_jax.inputs.masks import over_axes
from mmvae_jax.tables.mixed_view import AnyView
from mmvae_jax.tables.tables import Table, Tables
from mmvae_jax.tables.view_checks import check_values, in_order


class InputColumn(LazyColumn):
    """Rows of a modality as the model's input, converted when they are read."""

    def __init__(self, table: Table, view: AnyView, rows: Int[np.ndarray, " r"]):
        self.table, self.view, self.rows = table, view, rows
        self.shape = (len(rows), *view.input_shape)
        self.dtype = view.input_dtype

    def _read(self, rows: Integer[np.ndarray, " b"]) -> Shaped[np.ndarray, "b ..."]:
        chosen = self.rows[rows]
        return self.view.to_input(
            in_order(self.table, self.view, chosen), self.table.observed[chosen]
        )


def make_examples(
    tables: Tables, views: Mapping[str, AnyView], rows: Int[np.ndarray, " r"]
) -> MultimodalArrays:
    """Returns rows of tables with a mask; modalities that are not among them are all missing."""
    data, mask = {}, {}
    for name, view in views.items():
        if name in tables.modalities:
            table = tables.modalities[name]
            data[name] = InputColumn(table, view, rows)
            mask[name] = table.observed[rows]
            if table.num_missing_entries:
                mask[name] = _entry_mask(table, view, rows)
        else:
            placeholder = np.zeros((), view.input_dtype)
            data[name] = np.broadcast_to(placeholder, (len(rows), *view.input_shape))
            mask[name] = np.zeros(len(rows), bool)
    return MultimodalArrays(data, None if tables.labels is None else tables.labels[rows], mask)


def _entry_mask(
    table: Table, view: AnyView, rows: Int[np.ndarray, " r"]
) -> Bool[np.ndarray, "r *entries"]:
    """Returns True for observed values of observed rows, in the shape of the model's input."""
    there = ~np.isnan(in_order(table, view, rows))
    there &= over_axes(table.observed[rows], there.ndim)
    return view.input_mask(there)


def check_examples(tables: Tables, views: Mapping[str, AnyView]) -> MultimodalArrays:
    """Returns all rows of tables as examples of a trained model.

    Raises:
      ValueError: if the model knows none of the modalities, or was trained on other kinds of
        values.

    Warns:
      UserWarning: of modalities that the model does not know, which are left out.
    """
    unknown = [name for name in tables.modalities if name not in views]
    if len(unknown) == len(tables.modalities):
        check_modalities(tables.place, unknown, views)
    if unknown:
        warnings.warn(
            f"{tables.place} has the modalities {unknown}, which the model does not know and which "
            f"are left out: it knows {list(views)}",
            stacklevel=2,
        )
    for name, view in views.items():
        if name in tables.modalities:
            check_values(tables.modalities[name], view)
    return make_examples(tables, views, np.arange(tables.num_rows))


def split_rows(
    num_rows: int, validation: float, seed: int
) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " v"]]:
    """Returns the rows to train on and the rows to validate on, each in order.

    Raises:
      ValueError: for a share that leaves nothing to train on, or a negative seed.

    >>> from mmvae_jax.tables.examples import split_rows
    >>> [rows.tolist() for rows in split_rows(5, 0.4, seed=0)]
    [[0, 1, 3], [2, 4]]
    """
    seed, validation = check_at_least("seed", seed, 0), check_share("validation", validation)
    size = max(1, round(validation * num_rows)) if validation else 0
    if size >= num_rows:
        raise ValueError(
            f"validation is {validation} of {num_rows} rows: give a share that leaves rows to "
            "train on"
        )
    order = np.random.default_rng(seed).permutation(num_rows)
    return np.sort(order[size:]), np.sort(order[:size])
