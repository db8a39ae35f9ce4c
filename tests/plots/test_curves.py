"""Training curves: one line per name, through the values that are known."""

import numpy as np
import pytest
from helpers.figure_checks import assert_draws

from mmvae_jax.plots import training_curve


def test_training_curve_draws_a_line_per_name():
    steps = np.array([0, 10, 20])
    values = {"training": np.array([3.0, 2.0, 1.0]), "evaluation": np.array([4.0, np.nan, 2.5])}
    figure = training_curve(steps, values)
    (axes,) = figure.axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert drawn == {
        "training": [[0, 3], [10, 2], [20, 1]],
        "evaluation": [[0, 4], [20, 2.5]],  # joined over the gap
    }
    assert axes.get_xlim() == (0, 20)
    assert axes.get_xlabel() == "training step"
    assert axes.get_ylabel() == "negative bound (nats per example)"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [*values]
    assert_draws(figure)


@pytest.mark.parametrize("steps", [[2], [1, 2]])
def test_a_single_value_is_visible(steps):
    loss = np.where(np.array(steps) == 2, 3.0, np.nan)
    figure = training_curve(np.array(steps), {"loss": loss}, ylabel="loss")
    (line,) = figure.axes[0].lines
    assert line.get_marker() == "o"
    assert figure.axes[0].get_ylabel() == "loss"
    assert_draws(figure)
