"""How the rows of a modality become what the model sees, and how they come back."""

from typing import Any, NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Bool, Float, Shaped

BYTE = 255


class View(NamedTuple):
    """A modality's rows and the model's input, which is ``(row - mean) / scale``, or classes.

    Attributes:
      likelihood: normal, laplace, bernoulli or categorical.
      dtype: of the rows.
      shape: of a row; ``()`` for a plain column of numbers.
      mean: that is taken off, ``[*shape]`` for standardised columns, 0 else.
      scale: that is divided by, likewise; 255 for bytes that are intensities.
      num_classes: of a categorical modality, 0 of others.
      is_image: whether the model's input is intensities, 0 to 1.
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
        """What ``MMVAEConfig.input_dims`` says of the modality."""
        if self.num_classes:
            return (*self.shape, self.num_classes)
        if self.is_image and len(self.shape) == 2:
            return (*self.shape, 1)
        return self.shape or (1,)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the model's input: classes are integers there, without an axis of their own."""
        return self.shape if self.num_classes else self.dim

    @property
    def input_dtype(self) -> np.dtype:
        """Of the model's input: bytes go to the device as they are, which divides them there."""
        if self.num_classes:
            return np.dtype(np.int32)
        return np.dtype(np.uint8 if self.are_bytes else np.float32)

    @property
    def are_bytes(self) -> bool:
        """Whether rows are intensities from 0 to 255."""
        return self.is_image and float(self.scale) == BYTE

    @property
    def has_density(self) -> bool:
        """Whether log p depends on the unit; Bernoulli and categorical are probabilities."""
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
        """What the model sees, zeros in missing rows."""
        mask = observed.reshape(-1, *[1] * (rows.ndim - 1))
        x = np.where(mask, rows, np.zeros((), rows.dtype))
        if not (self.num_classes or self.are_bytes):
            x = np.where(mask, (x - self.mean) / self.scale, 0)
        return x.astype(self.input_dtype).reshape(len(rows), *self.input_shape)

    def to_rows(
        self, decoded: Float[np.ndarray, "*batch_dim"], *, are_draws: bool
    ) -> Shaped[np.ndarray, "*batch_shape"]:
        """What the model makes, ``[*batch, *dim]``, in the units and shape of the rows.

        Args:
          decoded: outputs of a decoder, for which the probabilities of Bernoulli logits and the
            likeliest class come back; or draws from its likelihood.
          are_draws: which of the two.
        """
        if self.num_classes:
            return decoded.argmax(-1).astype(self.output_dtype)
        batch = decoded.shape[: decoded.ndim - len(self.dim)]
        x = decoded.reshape(*batch, *self.shape).astype(np.float64)
        if self.likelihood == "bernoulli" and not are_draws:
            x = scipy.special.expit(x)
        return (x * self.scale + self.mean).astype(self.output_dtype)

    def no_rows(self, *batch: int) -> Shaped[np.ndarray, "*batch_shape"]:
        """Rows that say nothing, ``[*batch, *shape]``: NaN, -1 for classes."""
        nothing = -1 if self.num_classes else np.nan
        return np.full((*batch, *self.shape), nothing, self.output_dtype)

    @property
    def output_dtype(self) -> np.dtype:
        """Of predictions: signed integers for classes, floats for all else."""
        dtype = np.dtype(self.dtype)
        if self.num_classes:
            return np.dtype(np.int64)
        return dtype if dtype.kind == "f" else np.dtype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, as ``from_json`` takes them."""
        return {
            **self._asdict(),
            "shape": list(self.shape),
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "View":
        """The view that ``to_json`` told of."""
        arrays = {field: np.array(told[field], np.float64) for field in ("mean", "scale")}
        return cls(**{**told, **arrays, "shape": tuple(told["shape"])})
