"""Choice of the view that suits a modality's values, and checks of values against a view."""

import warnings

import numpy as np
from jaxtyping import Float, Int

from mmvae_jax.data import Column
from mmvae_jax.metrics import mean_variance
from mmvae_jax.tables.tables import MASK, Table, blocks
from mmvae_jax.tables.views import BYTE, View

#: Integers from this value on are more likely counts or measurements than classes.
MAX_CLASSES = 1000


def choose_view(modality: Table, likelihood: str | None, rows: Int[np.ndarray, " r"]) -> View:
    """Returns the view of a modality, with the mean and scale of the rows to train on.

    Args:
      modality: table of the modality.
      likelihood: name of the likelihood; by default the values decide.
      rows: rows to train on.

    Raises:
      ValueError: if none of the rows is observed, values do not fit the likelihood, or single
        values of a row are missing.
    """
    values, high = modality.values, modality.high
    seen = rows[modality.observed[rows]]
    if not seen.size:
        raise ValueError(f"{modality.place} is missing in all rows to train on: leave it out")
    _check_entries(modality)
    likelihood = likelihood or suggest_likelihood(modality)
    is_categorical = likelihood == "categorical"
    is_image = not is_categorical and _is_image(modality)
    mean, scale = np.zeros(()), np.ones(())
    if is_image and values.dtype == np.uint8 and high > 1:
        scale = np.array(float(BYTE))
    elif likelihood in ("normal", "laplace") and not is_image:
        mean, scale = _mean_and_scale(values, seen)
    num_classes = 0
    if is_categorical:
        num_classes = len(modality.classes) if modality.classes else max(int(high), 0) + 1
    view = View(likelihood, str(values.dtype), values.shape[1:], mean, scale, num_classes, is_image)
    check_values(modality, view)
    return view


def suggest_likelihood(modality: Table) -> str:
    """Returns the likelihood that suits the values, as the help of ``mmvae train`` lists them.

    Images are bytes of two or three axes, and floats from 0 to 1 of three axes whose last one is
    one or three channels.

    Raises:
      ValueError: for integers that do not look like classes.
    """
    low, high = modality.low, modality.high
    if modality.classes:
        return "categorical"
    if modality.are_whole and low >= 0 and high <= 1:
        return "bernoulli"
    if _is_image(modality):
        return "laplace"
    if modality.values.dtype.kind == "f":
        return "normal"
    if low < 0 or high >= MAX_CLASSES:
        raise ValueError(
            f"{modality.place} holds integers from {low:g} to {high:g}: add --likelihood "
            "NAME=normal for measurements and counts, or number classes from 0 and add "
            "--likelihood NAME=categorical"
        )
    return "categorical"


def check_values(modality: Table, view: View) -> None:
    """Checks that all observed rows fit the view.

    Raises:
      ValueError: naming the first row that does not.

    Warns:
      UserWarning: if a column that did not vary in training does here.
    """
    _check_entries(modality)
    values, place = modality.values, modality.place
    if values.shape[1:] != view.shape:
        raise ValueError(f"{place} has rows of shape {values.shape[1:]}: expected {view.shape}")
    if view.are_bytes and values.dtype != np.uint8:
        raise ValueError(f"{place} is {values.dtype}: expected uint8 from 0 to 255, as in training")
    if view.num_classes:
        top, expected = view.num_classes - 1, "a class, a whole number"
    elif view.is_image or view.likelihood == "bernoulli":
        top, expected = float(view.scale), "a value"
    else:
        _warn_of_constants(modality, view)
        return
    for rows, block in blocks(values, np.flatnonzero(modality.observed)):
        flat = block.reshape(len(block), -1)
        bad = (flat < 0) | (flat > top)
        if view.num_classes:
            bad |= flat != np.floor(flat)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise ValueError(
                f"{place}: row {rows[row]} holds {flat[row, column]:g}: expected {expected} from 0 "
                f"to {top:g} ({view.likelihood}); missing rows are False in {MASK}NAME"
            )


def _check_entries(modality: Table) -> None:
    """Raises ValueError if an observed row is NaN in part."""
    if not modality.num_missing_entries:
        return
    for rows, block in blocks(modality.values, np.flatnonzero(modality.observed)):
        num_nan = np.isnan(block.reshape(len(block), -1)).sum(1)
        if num_nan.any():
            first = (num_nan > 0).argmax()
            raise ValueError(
                f"{modality.place}: row {rows[first]} is NaN in {num_nan[first]} of its "
                f"{block[0].size} values: fill in single values; a missing row is NaN throughout, "
                f"or False in {MASK}NAME"
            )


def _warn_of_constants(modality: Table, view: View) -> None:
    """Warns if a column without a scale, because it was constant in training, varies here."""
    mean = view.mean.ravel()
    columns = np.flatnonzero(view.scale.ravel() == 1)
    if not columns.size:
        return
    for rows, block in blocks(modality.values, np.flatnonzero(modality.observed)):
        found = block.reshape(len(block), -1)[:, columns]
        differs = np.abs(found - mean[columns]) > 1e-6 * np.maximum(np.abs(mean[columns]), 1)
        if differs.any():
            row, number = np.argwhere(differs)[0]
            column = columns[number]
            warnings.warn(
                f"{modality.place}: column {column} was {mean[column]:g} in all rows to train on, "
                f"and is {found[row, number]:g} in row {rows[row]}: it has no scale, and may "
                "decide all likelihoods; leave the column out, or train on rows where it varies",
                stacklevel=2,
            )
            return


def _is_image(modality: Table) -> bool:
    """True for values that look like intensities."""
    dtype, shape = modality.values.dtype, modality.values.shape[1:]
    if dtype in (np.uint8, np.bool_):
        return len(shape) in (2, 3)
    is_unit = dtype.kind == "f" and modality.low >= 0 and modality.high <= 1
    return is_unit and len(shape) == 3 and shape[2] in (1, 3)


def _mean_and_scale(
    values: Column, rows: np.ndarray
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Mean and standard deviation over rows; 1 for values that do not vary."""
    moments = mean_variance(np.zeros((0, *values.shape[1:])))
    for _, block in blocks(values, rows):
        moments = moments.merge(mean_variance(block.astype(np.float64)))
    mean, deviation = np.asarray(moments.mean), np.sqrt(moments.variance)
    varies = deviation > 1e-8 * np.abs(mean)  # smaller deviations are rounding of a constant
    return mean, np.where(varies, deviation, 1.0)
