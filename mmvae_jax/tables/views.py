"""Conversion of a modality's rows, in the user's units, to and from the model's input."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from mmvae_jax.inputs.masks import over_axes

BYTE = 255
#: A class in the user's data: text, or a number other than its own position among the classes.
ClassValue = str | int | float


class View(NamedTuple):
    """A modality's conversion: the model's input is ``(f(row) - mean) / scale``, or classes.

    Attributes:
      likelihood: name of a built-in likelihood.
      dtype: type of the rows.
      shape: shape of a row; ``()`` for a plain column of numbers.
      mean: mean of standardised columns ``[*shape]``, otherwise 0.
      scale: standard deviation of standardised columns ``[*shape]``, 255 for bytes that are
        intensities, otherwise 1.
      num_classes: number of classes of a categorical modality, 0 for others.
      is_image: True if the model's input is intensities from 0 to 1.
      log1p: True if f is ``log(1 + row)``, otherwise the identity.
      classes: values of the classes in the user's data, in order; None for ``0, 1, ...``.
      features: names of the columns in training, None if they had none.
      library_size: median total count of a row in training, the size of libraries whose total is
        unknown; None if totals are no offsets.
    """

    likelihood: str
    dtype: str
    shape: tuple[int, ...]
    mean: Float[np.ndarray, "*shape"]
    scale: Float[np.ndarray, "*shape"]
    num_classes: int
    is_image: bool
    log1p: bool = False
    classes: tuple[ClassValue, ...] | None = None
    features: tuple[str, ...] | None = None
    library_size: float | None = None

    @property
    def dim(self) -> tuple[int, ...]:
        """Entry of the modality in ``MMVAEConfig.input_dims``."""
        if self.num_classes:
            return (*self.shape, self.num_classes)
        if self.is_image and len(self.shape) == 2:
            return (*self.shape, 1)
        return self.shape or (1,)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the model's input; classes are integers, without an axis for one-hot vectors."""
        return self.shape if self.num_classes else self.dim

    @property
    def input_dtype(self) -> np.dtype:
        """Type of the model's input; bytes stay bytes, which the device divides by 255."""
        if self.num_classes:
            return np.dtype(np.int32)
        return np.dtype(np.uint8 if self.are_bytes else np.float32)

    @property
    def output_dtype(self) -> np.dtype:
        """Type of predictions: that of the classes, and floats for all else."""
        if self.num_classes:
            return np.dtype(np.int64) if self.classes is None else np.array(self.classes).dtype
        dtype = np.dtype(self.dtype)
        return dtype if dtype.kind == "f" else np.dtype(np.float32)

    @property
    def class_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of the probabilities of classes, under an empty name; empty without classes."""
        return {"": self.dim} if self.num_classes else {}

    @property
    def are_bytes(self) -> bool:
        """True if rows are intensities from 0 to 255."""
        return self.is_image and float(self.scale) == BYTE

    @property
    def has_density(self) -> bool:
        """True if p is a density, which depends on the unit; the others are probabilities."""
        return self.likelihood in ("normal", "laplace")

    def log_det(
        self, rows: Shaped[np.ndarray, "b *shape"], observed: Bool[np.ndarray, " b"]
    ) -> Float[np.ndarray, " b"]:
        """Returns ``log p(row) - log p(input)`` by row: ``sum_i log |d input_i / d row_i|``.

        Values that are NaN, and rows that are not observed, count nothing.
        """
        if not self.has_density:
            return np.zeros(len(rows))
        values = rows.astype(np.float64)
        derivative = np.broadcast_to(-np.log(self.scale), values.shape)
        if self.log1p:
            derivative = derivative - np.log1p(np.maximum(values, 0))
        seen = ~np.isnan(values) & over_axes(observed, values.ndim)
        return np.where(seen, derivative, 0).reshape(len(rows), -1).sum(1)

    def to_input(
        self, rows: Shaped[np.ndarray, "b *shape"], observed: Bool[np.ndarray, " b"]
    ) -> Shaped[np.ndarray, "b *dim"]:
        """Returns the model's input, zeros in missing rows and in values that are NaN."""
        mask = over_axes(observed, rows.ndim)
        if self.num_classes:
            x = self._class_numbers(rows, mask)
        elif self.are_bytes:
            x = np.where(mask, rows, np.zeros((), rows.dtype))
        else:
            values = np.where(mask, rows.astype(np.float64), np.nan)
            values = np.log1p(values) if self.log1p else values
            x = np.nan_to_num((values - self.mean) / self.scale, nan=0.0)
        return x.astype(self.input_dtype).reshape(len(rows), *self.input_shape)

    def to_rows(
        self, values: Float[np.ndarray, "*batch_dim"]
    ) -> Shaped[np.ndarray, "*batch_shape"]:
        """Returns values of the model in the units and shape of the rows.

        Args:
          values: means of the likelihood or draws from it, ``[*batch, *dim]``. Classes are the most
            probable ones.
        """
        if self.num_classes:
            numbers = values.argmax(-1)
            found = numbers if self.classes is None else np.array(self.classes)[numbers]
            return found.astype(self.output_dtype)
        batch = values.shape[: values.ndim - len(self.dim)]
        x = values.reshape(*batch, *self.shape).astype(np.float64)
        rows = x * self.scale + self.mean
        return (np.expm1(rows) if self.log1p else rows).astype(self.output_dtype)

    def input_mask(self, there: Bool[np.ndarray, "b *shape"]) -> Bool[np.ndarray, "b *dim"]:
        """Returns True for the inputs of observed values."""
        return there.reshape(len(there), *self.input_shape)

    def missing_rows(self, *batch: int) -> Shaped[np.ndarray, "*batch_shape"]:
        """Returns placeholder rows ``[*batch, *shape]``: NaN, or -1 or empty text for classes."""
        dtype = self.output_dtype
        placeholder = {"i": -1, "U": ""}.get(dtype.kind, np.nan)
        return np.full((*batch, *self.shape), placeholder, dtype)

    def class_probabilities(
        self, mean: Float[np.ndarray, "b *dim"]
    ) -> dict[str, Float[np.ndarray, "b *dim"]]:
        """Returns the probabilities of classes in means of the likelihood, as ``class_shapes``."""
        return {"": mean} if self.num_classes else {}

    def labelled(self, rows: Shaped[np.ndarray, "*n"]) -> Shaped[np.ndarray, "*n"]:
        """Returns rows as they are: they have the names of classes already."""
        return rows

    def to_json(self) -> dict[str, Any]:
        """Returns plain numbers, strings and lists, which ``from_json`` reads."""
        return {
            **self._asdict(),
            "shape": list(self.shape),
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "classes": self.classes and list(self.classes),
            "features": self.features and list(self.features),
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "View":
        """Returns the view that ``to_json`` was called on."""
        arrays = {name: np.array(fields[name], np.float64) for name in ("mean", "scale")}
        tuples = {
            name: fields[name] if fields.get(name) is None else tuple(fields[name])
            for name in ("shape", "classes", "features")
            if name in fields
        }
        return cls(**{**fields, **arrays, **tuples})

    def _class_numbers(
        self, rows: Shaped[np.ndarray, "b *shape"], mask: Bool[np.ndarray, "b *ones"]
    ) -> Shaped[np.ndarray, "b *shape"]:
        """Returns the position of each row's classes among the view's, 0 where missing."""
        if self.classes is None:
            return np.where(mask, rows, np.zeros((), rows.dtype))
        classes = np.array(self.classes)
        order = np.argsort(classes)
        place = np.searchsorted(classes[order], rows).clip(max=len(classes) - 1)
        return np.where(mask, order[place], 0)


#: Likelihoods of counts, whose decoders give log means.
COUNTS = ("poisson", "negative_binomial", "zero_inflated_negative_binomial")
