"""Choice of the view that suits a modality's values."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from mmvae_jax.checks import check_choice
from mmvae_jax.data.columns import Column
from mmvae_jax.tables.tables import Table, blocks
from mmvae_jax.tables.view_checks import check_values
from mmvae_jax.tables.views import BYTE, COUNTS, ClassValue, View

TRANSFORMS: tuple[str, ...] = ("standardise", "log1p", "none")
LIBRARY_SIZES: tuple[str, ...] = ("observed", "none")
#: Most classes that a single column of whole numbers is taken to hold, without being asked.
MAX_CLASSES = 20
#: Most inputs, columns times classes, that whole numbers become one-hot vectors of unasked.
MAX_ONE_HOT = 200
#: Most inputs of a modality that classes may make at all.
MAX_INPUTS = 1_000_000


def choose_view(
    table: Table,
    rows: Int[np.ndarray, " r"],
    *,
    likelihood: str | None = None,
    transform: str | None = None,
    library_size: str | None = None,
) -> View:
    """Returns the view of a modality, fitted on the rows to train on.

    Args:
      table: values of the modality.
      rows: rows to train on.
      likelihood: name of the likelihood; by default the values decide.
      transform: "standardise" (default), "log1p" (``log(1 + x)``, standardised) or "none", of a
        modality with a normal or Laplace likelihood that is no image.
      library_size: "observed" (default for several columns of counts) or "none".

    Raises:
      ValueError: if none of the rows is observed, or values do not fit the likelihood or transform.
    """
    seen = rows[table.observed[rows]]
    if not seen.size:
        raise ValueError(f"{table.place} is missing in all rows to train on: leave it out")
    likelihood = likelihood or suggest_likelihood(table)
    is_image = likelihood != "categorical" and likelihood not in COUNTS and _is_image(table)
    _check_transform(table, transform, likelihood, is_image=is_image)
    has_library = _has_library(table, library_size, likelihood)
    view = View(
        likelihood,
        str(table.values.dtype),
        table.values.shape[1:],
        mean=np.zeros(()),
        scale=np.ones(()),
        num_classes=0,
        is_image=is_image,
        log1p=transform == "log1p",
        features=table.features,
    )
    if likelihood == "categorical":
        view = _with_classes(view, table)
    elif is_image and table.values.dtype == np.uint8 and table.high > 1:
        view = view._replace(scale=np.array(float(BYTE)))
    elif view.has_density and not is_image and transform != "none":
        mean, scale = _mean_and_scale(table.values, seen, log1p=view.log1p)
        view = view._replace(mean=mean, scale=scale)
    check_values(table, view)
    return view._replace(library_size=_median_total(table, seen)) if has_library else view


def suggest_likelihood(table: Table) -> str:
    """Returns the likelihood that suits the values.

    - text: categorical
    - only 0 and 1: bernoulli
    - images: laplace. They are bytes of two or three axes, and floats from 0 to 1 of three axes
      whose last one is one or three channels.
    - one column of at most 20 distinct whole numbers, or several columns of integers from 0 to 19:
      categorical, unless their one-hot vectors had more than 200 values
    - several columns of whole numbers from 0 to above 19: negative binomial
    - other numbers: normal
    """
    low, high = table.low, table.high
    if table.classes is not None:
        return "categorical"
    if table.are_whole and low >= 0 and high <= 1:
        return "bernoulli"
    if _is_image(table):
        return "laplace"
    if not table.are_whole or not np.isfinite(low):
        return "normal"
    num_columns = int(np.prod(table.values.shape[1:]))
    if num_columns == 1:
        return "categorical" if _distinct(table, MAX_CLASSES) is not None else "normal"
    is_small = table.values.dtype.kind in "iu" and high < MAX_CLASSES
    if low >= 0 and is_small and num_columns * (high + 1) <= MAX_ONE_HOT:
        return "categorical"
    if low >= 0 and (high >= MAX_CLASSES or table.values.dtype.kind in "iu"):
        return "negative_binomial"
    return "normal"


def _check_transform(
    table: Table, transform: str | None, likelihood: str, *, is_image: bool
) -> None:
    if transform is None:
        return
    check_choice("transform", transform, TRANSFORMS)
    if is_image or likelihood not in ("normal", "laplace"):
        kind = "an image" if is_image else likelihood
        raise ValueError(
            f"transform is {transform!r}, but {table.place} is taken for {kind}: "
            "leave the transform out, or give it a normal or laplace likelihood"
        )


def _has_library(table: Table, library_size: str | None, likelihood: str) -> bool:
    """Returns True if the total counts of rows are offsets.

    Raises:
      ValueError: if observed totals are asked for where they make no sense.
    """
    shape = table.values.shape[1:]
    is_possible = likelihood in COUNTS and len(shape) == 1 and shape[0] > 1
    if library_size == "observed" and not is_possible:
        raise ValueError(
            f"library_size is 'observed', but {table.place} is taken for "
            f"{likelihood}{list(shape)}: only several columns of counts have a "
            "total"
        )
    return is_possible and library_size != "none"


def _median_total(table: Table, rows: Int[np.ndarray, " r"]) -> float:
    """Returns the median total count of the rows that have counts above 0; 1 without any."""
    totals = [
        np.nansum(block, -1, dtype=np.float64).ravel() for _, block in blocks(table.values, rows)
    ]
    positive = np.concatenate(totals)
    positive = positive[positive > 0]
    return float(np.median(positive)) if positive.size else 1.0


def _with_classes(view: View, table: Table) -> View:
    """Returns a view with the classes of a table: 0, 1, ..., or its distinct values."""
    if table.classes is not None:
        classes: tuple[ClassValue, ...] | None = table.classes
    else:
        classes = _distinct(table, MAX_INPUTS)
        if classes is None:
            raise ValueError(f"{table.place} has more than {MAX_INPUTS} classes: {_OTHERS}")
    num_inputs = int(np.prod(view.shape)) * len(classes)
    if num_inputs > MAX_INPUTS:
        raise ValueError(
            f"{table.place} would become {num_inputs} inputs, {len(classes)} classes in each of "
            f"{int(np.prod(view.shape))} columns: {_OTHERS}"
        )
    is_range = all(not isinstance(x, str) for x in classes) and classes == tuple(
        range(len(classes))
    )
    are_floats = np.dtype(view.dtype).kind == "f" and table.classes is None
    return view._replace(
        num_classes=len(classes), classes=None if is_range and not are_floats else classes
    )


_OTHERS = "choose the likelihood normal for measurements, or negative_binomial for counts"


def _distinct(table: Table, most: int) -> tuple[ClassValue, ...] | None:
    """Returns the sorted distinct observed values; None if there are more than ``most``."""
    found = np.zeros(0, table.values.dtype)
    for _, block in blocks(table.values, np.flatnonzero(table.observed)):
        found = np.union1d(found, block[~np.isnan(block)] if block.dtype.kind == "f" else block)
        if len(found) > most:
            return None
    return tuple(found.tolist())


def _is_image(table: Table) -> bool:
    """True for values that look like intensities."""
    dtype, shape = table.values.dtype, table.values.shape[1:]
    if table.classes is not None:
        return False
    if dtype in (np.uint8, np.bool_):
        return len(shape) in (2, 3)
    is_unit = dtype.kind == "f" and table.low >= 0 and table.high <= 1
    return is_unit and len(shape) == 3 and shape[2] in (1, 3)


def _mean_and_scale(
    values: Column, rows: np.ndarray, *, log1p: bool
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Mean and standard deviation over observed values; 1 for values that do not vary."""

    def transformed() -> Iterator[np.ndarray]:
        for _, block in blocks(values, rows):
            x = block.astype(np.float64)
            yield np.log1p(x) if log1p else x

    count = np.maximum(sum((~np.isnan(x)).sum(0) for x in transformed()), 1)
    mean = sum(np.nansum(x, 0) for x in transformed()) / count
    deviation = np.sqrt(sum(np.nansum((x - mean) ** 2, 0) for x in transformed()) / count)
    varies = deviation > 1e-8 * np.abs(mean)  # smaller deviations are rounding of a constant
    return np.asarray(mean), np.where(varies, deviation, 1.0)
