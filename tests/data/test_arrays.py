"""Checks of data sets, and examples by row."""

import numpy as np
import pytest

from mmvae_jax.data import MultimodalArrays, batches, num_examples, take


def test_take_keeps_order_and_repetition():
    rows = np.arange(9)
    dataset = MultimodalArrays(
        {"x": 10 * rows}, rows, {"x": rows % 2 == 0}, weight=rows.astype(np.float32)
    )
    assert num_examples(dataset) == 9
    taken = take(dataset, np.array([7, 2, -2]))
    assert taken.data["x"].tolist() == [70, 20, 70]
    assert taken.labels.tolist() == taken.weight.tolist() == [7, 2, 7]
    assert taken.mask["x"].tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {}}, "data is empty"),
        ({"data": {"x": np.zeros(3), "y": np.zeros((4, 2))}}, r"data\['y'\] has 4"),
        ({"labels": np.zeros(4, int)}, "labels has 4"),
        ({"mask": {"x": np.ones(4, bool)}}, r"mask\['x'\] has 4"),
        ({"mask": {"z": np.ones(3, bool)}}, r"mask is a dict of \['z'\]"),
        ({"mask": {"x": np.ones(3)}}, r"mask\['x'\] is float64\[3\]"),
        ({"mask": {"x": np.ones((3, 1), bool)}}, r"mask\['x'\] is bool\[3, 1\]"),
        ({"weight": np.ones(4)}, "weight has 4"),
        ({"weight": np.float32([1, -1, 1])}, r"weight\[1\] is -1"),
        ({"weight": np.ones((3, 1))}, r"weight is float64\[3, 1\]"),
        ({"data": {"x": np.array(["a", "b", "c"])}}, r"data\['x'\] is an array of <U1"),
        ({"data": {"x": np.array([None, 1, 2])}}, r"data\['x'\] is an array of object"),
        ({"data": {"x": np.array(1.0)}}, r"data\['x'\] is a scalar"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    dataset = MultimodalArrays({"x": np.zeros(3)})._replace(**change)
    with pytest.raises(ValueError, match=message):
        batches(dataset, 2, seed=0, num_steps=1)
