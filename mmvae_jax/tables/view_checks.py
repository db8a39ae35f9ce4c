"""Checks of a table's values against the view that was chosen in training."""

import warnings
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, Shaped

from mmvae_jax.data.columns import read_rows
from mmvae_jax.inputs.masks import over_axes
from mmvae_jax.tables.mixed_view import AnyView, MixedView
from mmvae_jax.tables.tables import MASK, Table, blocks, first_names, scan
from mmvae_jax.tables.values import SourceTable
from mmvae_jax.tables.views import COUNTS, ClassValue, View


def check_values(table: Table, view: AnyView) -> None:
    """Checks that all observed rows fit the view.

    Raises:
      ValueError: naming the first row that does not.

    Warns:
      UserWarning: if a column that did not vary in training does here.
    """
    place, shape = table.place, table.values.shape[1:]
    if shape != view.shape:
        raise ValueError(f"{place} has rows of shape {shape}: expected {view.shape}")
    column_order(table, view)
    if isinstance(view, MixedView):
        _check_parts(table, view)
        return
    if table.column_classes is not None:
        raise ValueError(f"{place} has text columns: expected numbers, as in training")
    if view.are_bytes and table.values.dtype != np.uint8:
        raise ValueError(
            f"{place} is {table.values.dtype}: expected uint8 from 0 to 255, as in training"
        )
    if view.num_classes:
        _check_classes(table, view)
    elif view.likelihood in COUNTS:
        _check_range(table, view, high=np.inf, expected="a count, a whole number")
    elif view.is_image or view.likelihood == "bernoulli":
        _check_range(table, view, high=float(view.scale), expected="a value")
    else:
        if view.log1p:
            _check_range(table, view, high=np.inf, expected="a value for log1p")
        _warn_of_constants(table, view)


def _check_parts(table: Table, view: MixedView) -> None:
    """Checks the columns of each kind."""
    order = column_order(table, view)
    names = _column_classes(table, order)
    values = read_rows(table.values, np.arange(len(table.observed)))
    values = np.asarray(values if order is None else values[:, order], np.float64)
    for place in {*names, *view.text}:
        title = f"{table.place}: column {view.column_name(place)!r}"
        if (place in names) != (place in view.text):
            kinds = ("text", "numbers") if place in names else ("numbers", "text")
            raise ValueError(f"{title} is {kinds[0]}: expected {kinds[1]}, as in training")
        seen = values[table.observed, place]
        found = [names[place][int(code)] for code in np.unique(seen[~np.isnan(seen)])]
        if unknown := [name for name in found if name not in view.text[place]]:
            raise ValueError(
                f"{title} holds {unknown[0]!r}: expected one of the classes "
                f"{_shown(view.text[place])}"
            )
    values = view.recoded(values, names)
    for part in view.parts:
        title = f"{table.place}, column{'s' * (len(part.columns) > 1)} " + first_names(
            tuple(map(view.column_name, part.columns))
        )
        own = part.values(values)
        source = SourceTable(title, own, features=part.view.features, mask=table.observed)
        check_values(scan(source), part.view)


def _column_classes(
    table: Table, order: Int[np.ndarray, " columns"] | None
) -> dict[int, tuple[str, ...]]:
    """Returns the names of the classes of the text columns, by place in the view's order."""
    if table.column_classes is None:
        return {}
    places = range(len(table.column_classes)) if order is None else order
    found = {place: table.column_classes[own] for place, own in enumerate(places)}
    return {place: names for place, names in found.items() if names is not None}


def column_order(table: Table, view: AnyView) -> Int[np.ndarray, " columns"] | None:
    """Returns the place of each of the view's columns in the table; None for the same order.

    Raises:
      ValueError: if both name their columns, and the names are not the same.
    """
    if table.features is None or view.features is None or table.features == view.features:
        return None
    missing = [name for name in view.features if name not in table.features]
    unknown = [name for name in table.features if name not in view.features]
    if missing or unknown:
        raise ValueError(
            f"{table.place} has other columns than in training: it lacks {missing[:5]}, and has "
            f"{unknown[:5]} besides"
        )
    places = {name: place for place, name in enumerate(table.features)}
    return np.array([places[name] for name in view.features])


def in_order(
    table: Table, view: AnyView, rows: Int[np.ndarray, " b"]
) -> Shaped[np.ndarray, "b *shape"]:
    """Returns rows of a table with the view's columns, and text in the place of its numbers.

    Text among other columns stays numbers, those of the view's classes.
    """
    return _in_order(table, view, rows, read_rows(table.values, rows))


def _in_order(
    table: Table, view: AnyView, rows: Int[np.ndarray, " b"], values: np.ndarray
) -> Shaped[np.ndarray, "b *shape"]:
    """Returns values ``[b, *shape]`` of these rows in the view's order."""
    order = column_order(table, view)
    if table.classes is not None:
        return np.array(table.classes)[
            np.where(over_axes(table.observed[rows], values.ndim), values, 0)
        ]
    values = values if order is None else values[:, order]
    if isinstance(view, MixedView):
        return view.recoded(values, _column_classes(table, order))
    return values


def _check_classes(table: Table, view: View) -> None:
    known = range(view.num_classes) if view.classes is None else view.classes
    for rows, values in _observed_blocks(table, view):
        wrong = ~np.isin(values, np.array(known)) & ~_is_nan(values)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ValueError(
                f"{table.place}: row {rows[row]} holds {values[row, column].item()!r}: expected "
                f"one of the classes {_shown(known)}; missing rows are False in {MASK}NAME"
            )


def _shown(known: range | tuple[ClassValue, ...]) -> str:
    """Returns the classes of a message, at most ten of them."""
    if isinstance(known, range):
        return f"0 to {len(known) - 1}"
    return ", ".join(map(repr, known[:10])) + ", ..." * (len(known) > 10)


def _check_range(table: Table, view: View, *, high: float, expected: str) -> None:
    """Checks that observed values are from 0 to a highest one, and whole numbers if counts."""
    if table.low >= 0 and table.high <= high and (view.likelihood not in COUNTS or table.are_whole):
        return
    for rows, values in _observed_blocks(table, view):
        wrong = (values < 0) | (values > high)
        if view.likelihood in COUNTS:
            wrong |= (values != np.floor(values)) & ~_is_nan(values)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            limits = "of at least 0" if high == np.inf else f"from 0 to {high:g}"
            raise ValueError(
                f"{table.place}: row {rows[row]} holds {values[row, column]:g}: expected "
                f"{expected} {limits} ({view.likelihood}); missing rows are False in {MASK}NAME"
            )


def _warn_of_constants(table: Table, view: View) -> None:
    """Warns if a column without a scale, because it was constant in training, varies here."""
    mean = view.mean.ravel()
    columns = np.flatnonzero(view.scale.ravel() == 1) if view.mean.ndim else np.zeros(0, int)
    if not columns.size:
        return
    for rows, values in _observed_blocks(table, view):
        found = np.log1p(values[:, columns]) if view.log1p else values[:, columns]
        differs = np.abs(found - mean[columns]) > 1e-6 * np.maximum(np.abs(mean[columns]), 1)
        if differs.any():
            row, number = np.argwhere(differs)[0]
            column = columns[number]
            name = column if view.features is None else repr(view.features[column])
            warnings.warn(
                f"{table.place}: column {name} was {mean[column]:g} in all rows to train on, "
                f"and is {found[row, number]:g} in row {rows[row]}: it has no scale, and may "
                "decide all likelihoods; leave the column out, or train on rows where it varies",
                stacklevel=2,
            )
            return


def _observed_blocks(
    table: Table, view: View
) -> Iterator[tuple[Int[np.ndarray, " b"], Shaped[np.ndarray, "b columns"]]]:
    """Yields row numbers, and their values in the view's order as a matrix."""
    for rows, values in blocks(table.values, np.flatnonzero(table.observed)):
        yield rows, _in_order(table, view, rows, values).reshape(len(rows), -1)


def _is_nan(values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
