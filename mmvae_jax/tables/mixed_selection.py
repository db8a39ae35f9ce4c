"""Choice of a modality's view, and of one view for each kind of column of a mixed table."""

import numpy as np
from jaxtyping import Bool, Float, Int

from mmvae_jax.checks import check_choice
from mmvae_jax.data.columns import read_rows
from mmvae_jax.tables.mixed_view import MIXED, AnyView, MixedView, ViewPart
from mmvae_jax.tables.tables import Table, blocks, scan
from mmvae_jax.tables.values import SourceTable
from mmvae_jax.tables.view_checks import check_values
from mmvae_jax.tables.view_selection import (
    MAX_CLASSES,
    MAX_ONE_HOT,
    TRANSFORMS,
    choose_view,
    suggest_likelihood,
)
from mmvae_jax.tables.views import View

#: Largest count of a column that is taken for counts without being asked; others are measurements.
MAX_COUNT = 1000
#: Order of the kinds in the model's input; each column of classes is a part by itself.
KINDS = ("normal", "bernoulli", "negative_binomial")


def choose(
    table: Table,
    rows: Int[np.ndarray, " r"],
    *,
    likelihood: str | None = None,
    transform: str | None = None,
    library_size: str | None = None,
) -> AnyView:
    """Returns the view of a modality, as ``choose_view``, or of a table of several kinds.

    These are tables with text among other columns, tables of numbers with binary columns, classes
    or counts beside measurements, and those of the likelihood "mixed".

    Raises:
      ValueError: if no view suits the values, the likelihood and the transform.
    """
    kinds = None
    if likelihood is None and _may_have_several_kinds(table):
        kinds = kinds_of_columns(table)
        if table.column_classes is not None or set(kinds) != {"normal"}:
            likelihood = MIXED
    if likelihood != MIXED:
        _check_no_text(table, likelihood)
        return choose_view(
            table, rows, likelihood=likelihood, transform=transform, library_size=library_size
        )
    if table.classes is not None or table.values.shape[1:] in ((), (1,)):
        raise ValueError(f"likelihood is 'mixed', but {table.place} is one column: leave it out")
    if len(table.values.shape) != 2:
        raise ValueError(
            f"likelihood is 'mixed', but {table.place} has rows of shape "
            f"{table.values.shape[1:]}: give a table of columns"
        )
    if library_size == "observed":
        raise ValueError(
            f"library_size is 'observed', but {table.place} is mixed: give the counts of a library "
            "as a modality by themselves"
        )
    return _mixed_view(table, rows, transform, kinds or kinds_of_columns(table))


def kinds_of_columns(table: Table) -> list[str]:
    """Returns the likelihood that suits each column of a table.

    - text: categorical
    - only 0 and 1, both of them: bernoulli
    - 2 to 20 distinct whole numbers: categorical, unless the one-hot vectors of all such columns
      had more than 200 values
    - more than 20 distinct whole numbers from 0 to at most 1000: negative_binomial
    - others: normal
    """
    whole, low, high = _statistics(table)
    kinds, sizes = ["normal"] * len(whole), {}
    places = np.flatnonzero(whole & (high > low))
    seen = np.flatnonzero(table.observed)
    values = np.concatenate([block[:, places] for _, block in blocks(table.values, seen)])
    for place, column in zip(places.tolist(), values.T, strict=True):
        num_distinct = len(np.unique(column[~np.isnan(column)]))
        if (low[place], high[place]) == (0, 1):
            kinds[place] = "bernoulli"
        elif num_distinct <= MAX_CLASSES:
            kinds[place], sizes[place] = "categorical", num_distinct
        elif low[place] == 0 and high[place] <= MAX_COUNT:
            kinds[place] = "negative_binomial"
    if sum(sizes.values()) > MAX_ONE_HOT:
        for place in sizes:
            kinds[place] = "normal"
    for place, names in enumerate(table.column_classes or ()):
        if names is not None:
            kinds[place] = "categorical"
    return kinds


def _may_have_several_kinds(table: Table) -> bool:
    """Returns True for a table with text, or of measurements, in several columns.

    A table of whole numbers only is one of counts or classes.
    """
    if table.column_classes is not None:
        return True
    is_matrix = len(table.values.shape) == 2 and table.values.shape[1] > 1
    if not is_matrix or table.are_whole or table.classes is not None:
        return False
    return suggest_likelihood(table) == "normal"


def _mixed_view(
    table: Table, rows: Int[np.ndarray, " r"], transform: str | None, kinds: list[str]
) -> MixedView:
    every = np.arange(len(table.observed))
    values = np.asarray(read_rows(table.values, every), np.float64)
    if transform is not None:
        check_choice("transform", transform, TRANSFORMS)
    parts = []
    for kind in KINDS:
        places = tuple(place for place, found in enumerate(kinds) if found == kind)
        if places:
            options = {"transform": transform} if kind == "normal" else {"library_size": "none"}
            view = choose_view(_part(table, values, places), rows, likelihood=kind, **options)
            parts.append(ViewPart(places, view))
    for place in (place for place, kind in enumerate(kinds) if kind == "categorical"):
        names = table.column_classes[place] if table.column_classes else None
        if names is None:
            view = choose_view(_part(table, values, place), rows, likelihood="categorical")
            parts.append(ViewPart((place,), view))
        else:
            parts.append(ViewPart((place,), _view_of_text(table, place, names), names))
    view = MixedView(tuple(parts), table.features)
    check_values(table, view)
    return view


def _view_of_text(table: Table, place: int, names: tuple[str, ...]) -> View:
    """Returns the view of a text column, whose classes are numbers."""
    if len(names) > MAX_ONE_HOT:
        raise ValueError(
            f"{table.place} has {len(names)} classes in column {column_name(table, place)}: drop "
            "the column, or make it the index (index_col) if it names the rows"
        )
    zero, one = np.zeros(()), np.ones(())
    return View("categorical", "float64", (), zero, one, len(names), is_image=False)


def _check_no_text(table: Table, likelihood: str | None) -> None:
    if table.column_classes is not None:
        place = next(i for i, names in enumerate(table.column_classes) if names is not None)
        raise ValueError(
            f"likelihood is {likelihood!r}, but {table.place} has the text column "
            f"{column_name(table, place)}: leave the likelihood out, or drop the column"
        )


def column_name(table: Table, place: int) -> str:
    """Returns the quoted name of a column, or its place if it has none."""
    return str(place) if table.features is None else repr(table.features[place])


def _part(table: Table, values: Float[np.ndarray, "n c"], places: tuple[int, ...] | int) -> Table:
    """Returns some columns of a table with these values as a table, or one column as a vector."""
    chosen = [places] if isinstance(places, int) else list(places)
    features = table.features and tuple(table.features[place] for place in chosen)
    values = values[:, places if isinstance(places, int) else chosen]
    return scan(SourceTable(table.place, values, features=features, mask=table.observed))


def _statistics(
    table: Table,
) -> tuple[Bool[np.ndarray, " c"], Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Returns True for columns of whole numbers, and the smallest and largest values of each."""
    num_columns = table.values.shape[1]
    whole, low, high = np.ones(num_columns, bool), np.inf, -np.inf
    for _, block in blocks(table.values, np.flatnonzero(table.observed)):
        whole &= ((block == np.floor(block)) | np.isnan(block)).all(0)
        low, high = np.fmin(low, np.fmin.reduce(block)), np.fmax(high, np.fmax.reduce(block))
    return whole, np.broadcast_to(low, num_columns), np.broadcast_to(high, num_columns)
