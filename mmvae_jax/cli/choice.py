"""Which view suits a modality's values, and whether values suit a view."""

import numpy as np
from jaxtyping import Float, Int

from mmvae_jax.cli.tables import MASK, Modality, blocks
from mmvae_jax.cli.views import BYTE, View
from mmvae_jax.metrics import mean_variance

#: Above that, whole numbers are more likely counts or measurements than classes.
MAX_CLASSES = 1000


def choose_view(modality: Modality, likelihood: str | None, rows: Int[np.ndarray, " r"]) -> View:
    """The view of a modality, with mean and scale of the rows to train on.

    Raises:
      ValueError: if no such row is observed, or values do not fit the likelihood.
    """
    values, high = modality.values, modality.high
    seen = rows[modality.observed[rows]]
    if not seen.size:
        raise ValueError(f"{modality.place}: no row to train on has it; leave it out")
    likelihood = likelihood or default_likelihood(modality)
    is_categorical = likelihood == "categorical"
    is_image = not is_categorical and _is_image(modality)
    mean, scale = np.zeros(()), np.ones(())
    if is_image and values.dtype == np.uint8 and high > 1:
        scale = np.array(float(BYTE))
    elif likelihood in ("normal", "laplace") and not is_image:
        mean, scale = _mean_and_scale(values, seen)
    num_classes = max(int(high), 0) + 1 if is_categorical else 0
    view = View(likelihood, str(values.dtype), values.shape[1:], mean, scale, num_classes, is_image)
    check_values(modality, view)
    return view


def default_likelihood(modality: Modality) -> str:
    """The likelihood that suits the values.

    Booleans, and numbers that are all 0 or 1: bernoulli. Images: laplace; these are bytes of two
    axes or three, and floats from 0 to 1 whose three axes end in one channel or three. Other
    integers: categorical. Other floats: normal.

    Raises:
      ValueError: for integers that are hardly classes, which the user has to say more about.
    """
    low, high = modality.low, modality.high
    if modality.are_whole and low >= 0 and high <= 1:
        return "bernoulli"
    if _is_image(modality):
        return "laplace"
    if modality.values.dtype.kind == "f":
        return "normal"
    if low < 0 or high >= MAX_CLASSES:
        raise ValueError(
            f"{modality.place} holds integers from {low:g} to {high:g}: say --likelihood "
            "<name>=normal for measurements and counts, or count classes from 0 and say "
            "--likelihood <name>=categorical"
        )
    return "categorical"


def check_values(modality: Modality, view: View) -> None:
    """Look whether all observed rows are of the view's kind.

    Raises:
      ValueError: naming the first row that is not.
    """
    values, place = modality.values, modality.place
    if values.shape[1:] != view.shape:
        raise ValueError(f"{place} has rows of shape {values.shape[1:]}, expected {view.shape}")
    if view.are_bytes and values.dtype != np.uint8:
        raise ValueError(
            f"{place} is {values.dtype}, expected uint8, from 0 to 255, as in training"
        )
    if view.num_classes:
        top, expected = view.num_classes - 1, "a class, a whole number"
    elif view.is_image or view.likelihood == "bernoulli":
        top, expected = float(view.scale), "a value"
    else:
        return
    for rows, block in blocks(values, np.flatnonzero(modality.observed)):
        flat = block.reshape(len(block), -1)
        bad = (flat < 0) | (flat > top)
        if view.num_classes:
            bad |= flat != np.floor(flat)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise ValueError(
                f"{place}: row {rows[row]} holds {flat[row, column]:g}, expected {expected} from 0 "
                f"to {top:g} ({view.likelihood}); say in {MASK}<name> which rows are missing"
            )


def _is_image(modality: Modality) -> bool:
    """Whether these are intensities, as far as one can tell."""
    dtype, shape = modality.values.dtype, modality.values.shape[1:]
    if dtype in (np.uint8, np.bool_):
        return len(shape) in (2, 3)
    is_unit = dtype.kind == "f" and modality.low >= 0 and modality.high <= 1
    return is_unit and len(shape) == 3 and shape[2] in (1, 3)


def _mean_and_scale(
    values: np.ndarray, rows: np.ndarray
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Mean and standard deviation of every value of these rows; 1 where it does not vary."""
    moments = mean_variance(np.zeros((0, *values.shape[1:])))
    for _, block in blocks(values, rows):
        moments = moments.merge(mean_variance(block.astype(np.float64)))
    mean, deviation = np.asarray(moments.mean), np.sqrt(moments.variance)
    varies = deviation > 1e-8 * np.abs(mean)  # what is below is the rounding of a constant
    return mean, np.where(varies, deviation, 1.0)
