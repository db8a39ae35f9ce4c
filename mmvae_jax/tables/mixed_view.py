"""Conversion of a table whose columns are of several kinds, to and from the model's input."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from mmvae_jax.tables.views import View

#: Name of the likelihood of such tables in settings.
MIXED = "mixed"


class ViewPart(NamedTuple):
    """Columns of one kind.

    Attributes:
      columns: places of the columns in the table; a single one for classes.
      view: conversion of these columns. The classes of text are ``0, 1, ...`` in it.
      text: names of the classes of a text column; None for numbers.
    """

    columns: tuple[int, ...]
    view: View
    text: tuple[str, ...] | None = None

    def values(self, rows: Float[np.ndarray, "b c"]) -> Float[np.ndarray, "b ..."]:
        """Returns the part's columns of rows, a vector of classes."""
        return rows[:, self.columns[0] if self.view.num_classes else list(self.columns)]


class MixedView(NamedTuple):
    """The conversion of a table, part by part, with the interface of ``View``.

    The parts lie side by side in the model's input, in which classes are one-hot. A row holds
    numbers in the columns' order of training, with the number of the class in a text column.

    Attributes:
      parts: columns of each kind.
      features: names of the columns in training, None if they had none.
    """

    parts: tuple[ViewPart, ...]
    features: tuple[str, ...] | None = None

    likelihood = MIXED
    num_classes = 0
    is_image = False
    are_bytes = False
    log1p = False
    library_size = None
    input_dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int]:
        """Shape of a row."""
        return (sum(len(part.columns) for part in self.parts),)

    @property
    def dim(self) -> tuple[int]:
        """Entry of the modality in ``MMVAEConfig.input_dims``."""
        return (sum(part.view.dim[0] for part in self.parts),)

    @property
    def input_shape(self) -> tuple[int]:
        """Shape of the model's input."""
        return self.dim

    @property
    def has_density(self) -> bool:
        """True if p depends on the unit of any column."""
        return any(part.view.has_density for part in self.parts)

    @property
    def class_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of the probabilities of each column of classes, by ``/<name of the column>``."""
        return {
            f"/{self.column_name(part.columns[0])}": part.view.dim
            for part in self.parts
            if part.view.num_classes
        }

    @property
    def text(self) -> dict[int, tuple[str, ...]]:
        """Names of the classes of the text columns, by place."""
        return {part.columns[0]: part.text for part in self.parts if part.text is not None}

    def column_name(self, place: int) -> str:
        """Returns the name of a column, or its place if it has none."""
        return str(place) if self.features is None else self.features[place]

    def describe(self) -> Iterator[tuple[str, str]]:
        """Yields the likelihood of each part, and the names of its columns."""
        for part in self.parts:
            yield part.view.likelihood, ", ".join(map(self.column_name, part.columns))

    def log_det(
        self, rows: Float[np.ndarray, "b c"], observed: Bool[np.ndarray, " b"]
    ) -> Float[np.ndarray, " b"]:
        """Returns ``log p(row) - log p(input)`` by row, as ``View.log_det``."""
        found = [part.view.log_det(part.values(rows), observed) for part in self.parts]
        return np.sum(found, axis=0)

    def to_input(
        self, rows: Float[np.ndarray, "b c"], observed: Bool[np.ndarray, " b"]
    ) -> Float[np.ndarray, "b d"]:
        """Returns the model's input, zeros in missing rows and in values that are NaN."""
        found = []
        for part in self.parts:
            values, view = part.values(rows), part.view
            if not view.num_classes:
                found.append(view.to_input(values, observed).astype(self.input_dtype))
                continue
            seen = observed & ~np.isnan(values)
            numbers = view.to_input(np.nan_to_num(values), seen)
            found.append(np.eye(view.num_classes, dtype=np.float32)[numbers] * seen[:, None])
        return np.concatenate(found, 1)

    def input_mask(self, there: Bool[np.ndarray, "b c"]) -> Bool[np.ndarray, "b d"]:
        """Returns True for the inputs of observed values."""
        found = [
            np.repeat(there[:, list(part.columns)], part.view.num_classes or 1, axis=1)
            for part in self.parts
        ]
        return np.concatenate(found, 1)

    def to_rows(self, values: Float[np.ndarray, "*batch d"]) -> Float[np.ndarray, "*batch c"]:
        """Returns means of the likelihood, or draws from it, in the units of the rows."""
        rows = self.missing_rows(*values.shape[:-1])
        for part, inputs in self._slices():
            found = part.view.to_rows(values[..., inputs])
            rows[..., list(part.columns)] = found[..., None] if part.view.num_classes else found
        return rows

    def class_probabilities(
        self, mean: Float[np.ndarray, "b d"]
    ) -> dict[str, Float[np.ndarray, "b _"]]:
        """Returns the probabilities of classes in means of the likelihood, as ``class_shapes``."""
        return {
            f"/{self.column_name(part.columns[0])}": mean[:, inputs]
            for part, inputs in self._slices()
            if part.view.num_classes
        }

    def missing_rows(self, *batch: int) -> Float[np.ndarray, "*batch c"]:
        """Returns placeholder rows, NaN throughout."""
        return np.full((*batch, *self.shape), np.nan)

    def recoded(
        self, rows: Float[np.ndarray, "b c"], names: Mapping[int, tuple[str, ...]]
    ) -> Float[np.ndarray, "b c"]:
        """Returns rows whose classes of text have the numbers of this view; NaN if unknown.

        Args:
          rows: rows of a table, in the columns' order of training.
          names: names of the classes of the table's own numbers, by place.
        """
        rows = np.array(rows, np.float64)
        for place, known in self.text.items():
            if place in names:
                numbers = {name: float(number) for number, name in enumerate(known)}
                found = np.array([numbers.get(name, np.nan) for name in names[place]] + [np.nan])
                rows[:, place] = found[np.nan_to_num(rows[:, place], nan=-1).astype(int)]
        return rows

    def labelled(self, rows: Float[np.ndarray, "*batch c"]) -> Shaped[np.ndarray, "..."]:
        """Returns rows as they are, or with text columns as a structured array ``[*batch]``.

        Its fields are the columns. Missing classes are empty text.
        """
        if not self.text:
            return rows
        columns = []
        for place in range(self.shape[0]):
            values, names = rows[..., place], self.text.get(place)
            if names is not None:
                values = np.array([*names, ""])[np.nan_to_num(values, nan=-1).astype(int)]
            columns.append((self.column_name(place), values))
        found = np.empty(rows.shape[:-1], [(name, values.dtype) for name, values in columns])
        for name, values in columns:
            found[name] = values
        return found

    def without_classes(self, rows: Float[np.ndarray, "*batch c"]) -> Float[np.ndarray, "..."]:
        """Returns rows with NaN in the columns of classes, which have no order."""
        rows = rows.copy()
        for part in self.parts:
            if part.view.num_classes:
                rows[..., part.columns[0]] = np.nan
        return rows

    def to_json(self) -> dict[str, Any]:
        """Returns plain numbers, strings and lists, which ``view_from_json`` reads."""
        return {
            "dtype": "float64",
            "shape": list(self.shape),
            "features": self.features and list(self.features),
            "parts": [part._asdict() | {"view": part.view.to_json()} for part in self.parts],
        }

    def _slices(self) -> Iterator[tuple[ViewPart, slice]]:
        """Yields each part, and the slice of the model's input that is its own."""
        start = 0
        for part in self.parts:
            yield part, slice(start, start + part.view.dim[0])
            start += part.view.dim[0]


#: The conversion of a modality.
AnyView = View | MixedView


def view_from_json(fields: Mapping[str, Any]) -> AnyView:
    """Returns the view that ``to_json`` was called on."""
    if "parts" not in fields:
        return View.from_json(dict(fields))
    parts = tuple(
        ViewPart(
            tuple(part["columns"]),
            View.from_json(part["view"]),
            None if part["text"] is None else tuple(part["text"]),
        )
        for part in fields["parts"]
    )
    features = fields["features"]
    return MixedView(parts, None if features is None else tuple(features))
