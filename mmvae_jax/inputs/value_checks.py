"""Checks on the host that values lie in the support of their likelihood.

They cost a minimum and a maximum per array; a row is only sought where one of these is out of
range. Values that are traced, or on an accelerator, are not checked.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Bool, Int, Shaped

from mmvae_jax.config import MMVAEConfig
from mmvae_jax.inputs.masks import observed_rows, over_axes
from mmvae_jax.inputs.model_inputs import are_intensities
from mmvae_jax.likelihood_settings import columns_of
from mmvae_jax.maths.likelihoods import SUPPORTS, Support

#: Largest deviation of the sum of a one-hot vector from 1, which half precision keeps to.
TOLERANCE = 1e-2


class Place(NamedTuple):
    """The array that is checked.

    Attributes:
      field: its name, for errors.
      modality: name of its modality.
      observed: True for rows that are observed; None for all.
      rows: numbers of its rows in the data set; None for a batch without a data set.
    """

    field: str
    modality: str
    observed: Bool[np.ndarray, " b"] | None
    rows: Int[np.ndarray, " b"] | None

    def first(
        self, x: Shaped[np.ndarray, "b *n"], is_wrong: Bool[np.ndarray, "b *n"]
    ) -> tuple[str, Any] | None:
        """Returns the first observed row with a wrong value, and the value; None without any."""
        wrong = is_wrong.reshape(len(is_wrong), -1).any(1)
        if self.observed is not None:
            wrong = wrong & self.observed
        if not wrong.any():
            return None
        index = int(wrong.argmax())
        row = f"row {index} of the batch" if self.rows is None else f"row {self.rows[index]}"
        return row, x[index][is_wrong[index]].flat[0]


def check_values(
    config: MMVAEConfig,
    batch: Any,
    rows: Int[np.ndarray, " b"] | None = None,
    *,
    field: str = "batch.data",
) -> None:
    """Checks the observed values of a batch, as far as the host has them.

    Args:
      config: config of the model, whose likelihoods decide.
      batch: ``Batch`` or ``MultimodalArrays`` of arrays.
      rows: numbers of the examples in their data set, for errors.
      field: name of the data, for errors.

    Raises:
      ValueError: naming modality, row and value, for NaN and infinity, values outside the support
        of a built-in likelihood, and bytes that are zeros and ones instead of intensities.
    """
    for name, x in batch.data.items():
        if name not in config.input_dims:
            continue
        mask = batch.mask.get(name) if isinstance(batch.mask, Mapping) else None
        observed = None if mask is None else _on_host(mask)
        if mask is not None and observed is None:
            continue  # it is unknown which rows count
        seen = None if observed is None else np.asarray(observed_rows(observed))
        place = Place(f"{field}[{name!r}]", name, seen, rows)
        for leaf in jax.tree.leaves(x):
            values = _on_host(leaf)
            if values is None or not values.ndim or not values.size:
                continue
            if observed is not None and observed.shape[:1] != values.shape[:1]:
                continue  # an error of another check
            if observed is not None and observed.ndim > 1:
                values = _filled(config, name, values, observed)
            _check_array(config, place, values)


def _filled(
    config: MMVAEConfig,
    name: str,
    x: Shaped[np.ndarray, "b ..."],
    observed: Bool[np.ndarray, "b *entries"],
) -> Shaped[np.ndarray, "b ..."]:
    """Returns an array with a value that every likelihood has, in the place of missing entries."""
    if observed.shape != x.shape[: observed.ndim]:
        return x  # an error of another check
    missing = ~over_axes(observed, x.ndim)
    missing, fill = np.broadcast_to(missing, x.shape).copy(), np.zeros(x.shape[-1:], x.dtype)
    if x.ndim > len(config.input_dims[name]):  # not of classes, which have no axis of vectors
        for likelihood, columns in columns_of(config.likelihood(name)[0]):
            if likelihood == "categorical":
                fill[columns][0] = 1
                missing[..., columns] |= missing[..., columns].any(-1, keepdims=True)
    return np.where(missing, fill, x)


def _check_array(config: MMVAEConfig, place: Place, x: Shaped[np.ndarray, "b ..."]) -> None:
    dim, (setting, _) = config.input_dims[place.modality], config.likelihood(place.modality)
    is_integer = x.dtype.kind in "iub"
    if are_intensities(config, place.modality, x.dtype):
        _check_intensities(place, x)
    elif setting == "categorical" and is_integer and x.ndim == len(dim):
        _check_classes(place, x, dim[-1])
    elif columns := columns_of(setting):
        for likelihood, part in columns:
            _check_numbers(place, x[..., part], SUPPORTS[likelihood], likelihood)
    elif not is_integer:
        _check_numbers(place, x, Support(), "custom")


def _check_intensities(place: Place, x: Shaped[np.ndarray, "b ..."]) -> None:
    seen = x if place.observed is None else x[place.observed]
    if seen.size and seen.max() == 1:
        raise ValueError(
            f"{place.field} is uint8 of zeros and ones, but bytes stand for intensities from 0 to "
            "255: give x.astype(np.float32), or x / np.float32(255) for intensities"
        )


def _check_classes(place: Place, x: Shaped[np.ndarray, "b ..."], num_classes: int) -> None:
    if x.min() >= 0 and x.max() < num_classes:
        return
    if found := place.first(x, (x < 0) | (x >= num_classes)):
        row, value = found
        raise ValueError(
            f"{place.field} is {value} in {row}: give classes from 0 to "
            f"{num_classes - 1}, or a larger last axis of input_dims[{place.modality!r}]"
        )


def _check_numbers(
    place: Place, x: Shaped[np.ndarray, "b ..."], support: Support, likelihood: str
) -> None:
    x = x if x.dtype.kind == "f" else x.astype(np.float32)  # NumPy does not know bfloat16
    largest = float(np.finfo(jax.dtypes.canonicalize_dtype(float)).max)
    low, high = max(support.low, -largest), min(support.high, largest)
    with np.errstate(invalid="ignore"):
        is_inside = low <= float(x.min()) and float(x.max()) <= high  # also for NaN
        if not is_inside or (support.is_count and (x != np.floor(x)).any()):
            wide = x.astype(np.float64)
            is_wrong = ~((wide >= low) & (wide <= high))
            if support.is_count:
                is_wrong |= wide != np.floor(wide)
            if found := place.first(x, is_wrong):
                row, value = found
                raise ValueError(
                    f"{place.field} is {value:g} in {row}: "
                    f"{_remedy(place, float(value), likelihood)}"
                )
        if support.is_one_hot and x.ndim > 1:
            _check_one_hot(place, x)


_GIVE_ONE_HOT = "give one-hot vectors over the last axis, or integer classes without it"


def _check_one_hot(place: Place, x: Shaped[np.ndarray, "b ..."]) -> None:
    sums = x.sum(-1, dtype=np.float32)
    if found := place.first(sums, ~(np.abs(sums - 1) <= TOLERANCE)):
        row, value = found
        raise ValueError(
            f"{place.field} is a vector that sums to {value:g} in {row}: {_GIVE_ONE_HOT}"
        )


def _remedy(place: Place, value: float, likelihood: str) -> str:
    """Returns the fix for a value that the likelihood cannot have."""
    if not np.isfinite(value):
        every = " or every NaN (mm.mask_nan)" * bool(np.isnan(value))
        return f"mask the modality in this row (mask={{...}}){every}, or impute the value"
    if likelihood == "bernoulli":
        return (
            "a bernoulli likelihood takes 0 to 1; rescale the values (x / 255, or (x + 1) / 2), or "
            f"choose another likelihood in decoders_dist[{place.modality!r}]"
        )
    if likelihood == "categorical":
        return _GIVE_ONE_HOT
    support = SUPPORTS.get(likelihood, Support())
    if support.is_count:
        return (
            f"a {likelihood} likelihood takes whole numbers from 0 to {support.high:g}; give "
            "counts before any normalisation, or choose another likelihood in "
            f"decoders_dist[{place.modality!r}]"
        )
    return "give numbers within single precision, for instance standardised ones"


def _on_host(x: Any) -> np.ndarray | None:
    """Returns an array of the host's memory; None for one that is traced or on an accelerator."""
    if isinstance(x, np.ndarray):
        return x
    if not isinstance(x, jax.Array) or isinstance(x, Tracer) or not x.is_fully_addressable:
        return None
    return np.asarray(x) if all(d.platform == "cpu" for d in x.devices()) else None
