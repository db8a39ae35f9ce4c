"""Conversion of a modality's rows, in the user's units, to and from the model's input."""

from typing import Any, NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Bool, Float, Shaped

BYTE = 255


class View(NamedTuple):
    """A modality's conversion: the model's input is ``(row - mean) / scale``, or classes.

    Attributes:
      likelihood: normal, laplace, bernoulli or categorical.
      dtype: type of the rows.
      shape: shape of a row; ``()`` for a plain column of numbers.
      mean: mean of standardised columns ``[*shape]``, otherwise 0.
      scale: standard deviation of standardised columns ``[*shape]``, 255 for bytes that are
        intensities, otherwise 1.
      num_classes: number of classes of a categorical modality, 0 for others.
      is_image: True if the model's input is intensities from 0 to 1.
    """

    likelihood: str
    dtype: str
    shape: tuple[int, ...]
    mean: Float[np.ndarray, "*shape"]
    scale: Float[np.ndarray, "*shape"]
    num_classes: int
    is_image: bool

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
        """Type of predictions: integers for classes, floats for all else."""
        dtype = np.dtype(self.dtype)
        if self.num_classes:
            return np.dtype(np.int64)
        return dtype if dtype.kind == "f" else np.dtype(np.float32)

    @property
    def are_bytes(self) -> bool:
        """True if rows are intensities from 0 to 255."""
        return self.is_image and float(self.scale) == BYTE

    @property
    def has_density(self) -> bool:
        """True if p is a density, which depends on the unit; the others are probabilities."""
        return self.likelihood in ("normal", "laplace")

    @property
    def log_det(self) -> float:
        """``log p(row) - log p(input)``, which is ``-sum_i log(scale_i)`` over a row's values."""
        if not self.has_density:
            return 0.0
        return -float(np.broadcast_to(np.log(self.scale), self.shape).sum())

    def to_input(
        self, rows: Shaped[np.ndarray, "b *shape"], observed: Bool[np.ndarray, " b"]
    ) -> Shaped[np.ndarray, "b *dim"]:
        """Returns the model's input, zeros in missing rows."""
        mask = observed.reshape(-1, *[1] * (rows.ndim - 1))
        x = np.where(mask, rows, np.zeros((), rows.dtype))
        if not (self.num_classes or self.are_bytes):
            x = np.where(mask, (x - self.mean) / self.scale, 0)
        return x.astype(self.input_dtype).reshape(len(rows), *self.input_shape)

    def to_rows(
        self, decoded: Float[np.ndarray, "*batch_dim"], *, are_draws: bool
    ) -> Shaped[np.ndarray, "*batch_shape"]:
        """Returns outputs of the model in the units and shape of the rows.

        Bernoulli logits become probabilities, and logits of classes the most probable class.

        Args:
          decoded: outputs of a decoder, or draws from its likelihood, ``[*batch, *dim]``.
          are_draws: True for draws from the likelihood.
        """
        if self.num_classes:
            return decoded.argmax(-1).astype(self.output_dtype)
        batch = decoded.shape[: decoded.ndim - len(self.dim)]
        x = decoded.reshape(*batch, *self.shape).astype(np.float64)
        if self.likelihood == "bernoulli" and not are_draws:
            x = scipy.special.expit(x)
        return (x * self.scale + self.mean).astype(self.output_dtype)

    def missing_rows(self, *batch: int) -> Shaped[np.ndarray, "*batch_shape"]:
        """Returns placeholder rows ``[*batch, *shape]``: NaN, or -1 for classes."""
        placeholder = -1 if self.num_classes else np.nan
        return np.full((*batch, *self.shape), placeholder, self.output_dtype)

    def to_json(self) -> dict[str, Any]:
        """Returns plain numbers, strings and lists, which ``from_json`` reads."""
        return {
            **self._asdict(),
            "shape": list(self.shape),
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "View":
        """Returns the view that ``to_json`` was called on."""
        arrays = {name: np.array(fields[name], np.float64) for name in ("mean", "scale")}
        return cls(**{**fields, **arrays, "shape": tuple(fields["shape"])})
