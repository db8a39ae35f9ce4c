"""Messages of wrong inputs: each names the field, its value and the place. Nothing is compiled."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import mmvae_jax as mm
from mmvae_jax.batch import observe

SIZE = 6
CONFIG = mm.MMVAEConfig(
    input_dims={"table": (3,), "image": (4, 4, 1), "mask": (2, 2), "kind": (5,), "counts": (2,)},
    decoders_dist={
        "image": "laplace",
        "mask": "bernoulli",
        "kind": "categorical",
        "counts": lambda decoded, x: -((decoded - x) ** 2).sum(),
    },
)
RIGHT: dict[str, Any] = {
    "table": np.ones((SIZE, 3)),
    "image": np.arange(16 * SIZE, dtype=np.uint8).reshape(SIZE, 4, 4, 1),
    "mask": np.ones((SIZE, 2, 2), np.float32),
    "kind": np.arange(SIZE) % 5,
    "counts": np.ones((SIZE, 2), np.uint8),
}
ONES = np.ones((SIZE, 3), np.float32)
ONE_HOT = np.eye(5, dtype=np.float32)[RIGHT["kind"]]


def with_value(x: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    """Returns a copy with one other value."""
    copy = x.copy()
    copy[place] = value
    return copy


#: Data of one modality, and the start of the message after ``batch.data['modality']``.
WRONG_DATA: dict[str, tuple[str, Any, str]] = {
    "nan": ("table", with_value(ONES, (4, 1), np.nan), "is nan in row 4 of the batch: mask the"),
    "infinity": ("table", with_value(ONES, (2, 0), -np.inf), "is -inf in row 2 of the batch: mask"),
    "too large": ("table", with_value(RIGHT["table"], (0, 0), 1e39), "is 1e+39 in row 0 of"),
    "nan of a custom likelihood": (
        "counts",
        with_value(np.ones((SIZE, 2)), (1, 1), np.nan),
        "is nan in row 1 of the batch: mask the modality in this row",
    ),
    "text": ("table", ONES.astype(str), "is an array of <U32: convert it to booleans, integers or"),
    "objects": ("table", ONES.astype(object), "is an array of object: convert it to booleans"),
    "complex": ("table", ONES.astype(complex), "is an array of complex128: convert it to"),
    "dates": ("table", ONES.astype("M8[D]"), "is an array of datetime64[D]: convert it to"),
    "durations": ("table", ONES.astype("m8[s]"), "is an array of timedelta64[s]: convert it to"),
    "records": ("table", np.zeros(SIZE, [("a", "f4")]), "is an array of [('a', '<f4')]: convert"),
    "masked": (
        "table",
        np.ma.array(ONES, mask=np.eye(SIZE, 3)),
        "is a masked array with 3 masked entries: mask the modality of their rows",
    ),
    "sparse matrix": ("table", scipy.sparse.csr_matrix(ONES), "is a csr_matrix, a sparse matrix"),
    "sparse array": ("table", scipy.sparse.coo_array(ONES), "is a coo_array, a sparse matrix"),
    "frame of text": (
        "table",
        pd.DataFrame({"a": [1.0] * SIZE, "b": ["x"] * SIZE, "c": [1.0] * SIZE}),
        "has the column 'b' of ",
    ),
    "categories": ("kind", pd.Series(["a"] * SIZE, dtype="category"), "has the column None of cat"),
    "ragged list": ("table", [[1.0, 2.0, 3.0], [1.0]], "is a ragged list: give rows of one shape"),
    "None": ("table", [[1.0, 2.0, 3.0], None], "is None in row 1: mm.incomplete_batch(config"),
    "string": ("table", "data.npy", "is a str: give an array"),
    "number": ("table", 1.0, "has shape (), expected ('b', 3)"),
    "integers": ("table", np.ones((SIZE, 3), int), "has dtype int64, expected a floating type"),
    "bytes of a table": ("table", np.ones((SIZE, 3), np.uint8), "is uint8 of one axis, expected a"),
    "zeros and ones in bytes": (
        "mask",
        np.ones((SIZE, 2, 2), np.uint8),
        "is uint8 of zeros and ones, but bytes stand for intensities from 0 to 255: give x.astype",
    ),
    "channels first": (
        "image",
        np.ones((SIZE, 1, 4, 4)),
        "has shape (6, 1, 4, 4), expected ('b', 4",
    ),
    "one example": ("image", np.ones((4, 4, 1)), "has shape (4, 4, 1), expected ('b', 4, 4, 1)"),
    "pytree": ("image", {"a": ONES}, "is a dict, expected an array: several arrays need a custom"),
    "empty pytree": ("counts", {}, "has arrays of the shapes []: give each the examples as its"),
    "pytree of lengths": (
        "counts",
        (np.ones(3), np.ones(4)),
        "has arrays of the shapes [(3,), (4,)]: give each the examples as its first axis",
    ),
    "text in a pytree": (
        "counts",
        {"a": np.array(["x"])},
        "['a'] is an array of <U1: convert it to booleans",
    ),
    "intensities to 255": (
        "mask",
        with_value(np.ones((SIZE, 2, 2)), (3, 0, 0), 214),
        "is 214 in row 3 of the batch: a bernoulli likelihood takes 0 to 1; rescale the values",
    ),
    "signs": (
        "mask",
        with_value(np.ones((SIZE, 2, 2)), (5, 1, 1), -1),
        "is -1 in row 5 of the batch: a bernoulli likelihood takes 0 to 1",
    ),
    "class too large": (
        "kind",
        np.arange(SIZE),
        "is 5 in row 5 of the batch: give classes from 0 to 4",
    ),
    "class below 0": (
        "kind",
        with_value(RIGHT["kind"], (2,), -1),
        "is -1 in row 2 of the batch: give classes from 0 to 4",
    ),
    "classes as floats": ("kind", np.ones(SIZE), "has shape (6,), expected ('b', 5)"),
    "one-hot that sums to 7": (
        "kind",
        with_value(ONE_HOT, (1, 3), 6),
        "is 6 in row 1 of the batch: give one-hot vectors over the last axis",
    ),
    "one-hot of two classes": (
        "kind",
        with_value(ONE_HOT, (1, 3), 1),
        "is a vector that sums to 2 in row 1 of the batch: give one-hot vectors",
    ),
    "one-hot of no class": (
        "kind",
        np.zeros((SIZE, 5), bool),
        "is a vector that sums to 0 in row 0 of the batch: give one-hot vectors",
    ),
    "negative one-hot": (
        "kind",
        with_value(ONE_HOT, (4, 0), -0.5),
        "is -0.5 in row 4 of the batch: give one-hot vectors",
    ),
    "one-hot integers of two classes": (
        "kind",
        with_value(ONE_HOT, (1, 3), 1).astype(int),
        "is a vector that sums to 2 in row 1 of the batch: give one-hot vectors",
    ),
}


def test_the_right_inputs():
    """Each wrong input is one change away from these."""
    observe(CONFIG, mm.Batch(RIGHT))


@pytest.mark.parametrize(("name", "data", "message"), WRONG_DATA.values(), ids=WRONG_DATA)
def test_wrong_data(name, data, message):
    with pytest.raises(
        ValueError, match=re.escape(f"batch.data['{name}']") + r" ?" + re.escape(message)
    ):
        observe(CONFIG, mm.Batch({**RIGHT, name: data}))


@pytest.mark.parametrize("name", ["table", "mask", "kind", "counts", "image"])
def test_what_is_missing_may_hold_anything(name):
    wrong = np.full((SIZE, *CONFIG.input_dims[name]), np.nan)
    seen = {other: np.full(SIZE, other != name) for other in CONFIG.input_dims}
    observe(CONFIG, mm.Batch({**RIGHT, name: wrong}, seen))
    seen[name][3] = True
    with pytest.raises(ValueError, match=rf"batch.data\['{name}'\] is nan in row 3 of the batch"):
        observe(CONFIG, mm.Batch({**RIGHT, name: wrong}, seen))
