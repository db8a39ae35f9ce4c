"""Array-likes of other libraries become arrays by position, or are refused by name."""

import inspect
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import nnx

import mmvae_jax as mm
from mmvae_jax.batch import as_arrays
from mmvae_jax.data import eval_batches, num_examples, take
from mmvae_jax.inputs.array_likes import as_array

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
CONFIG = mm.MMVAEConfig(input_dims={"x": (3,)}, latent_dim=2, K=2)


class Tensor:
    """PyTorch's tensor, as far as a conversion needs it."""

    def __init__(self, values, dtype="torch.float32"):
        self.values, self.dtype, self.shape = values, dtype, values.shape

    def __getitem__(self, rows):
        return Tensor(self.values[rows])

    def detach(self):
        return self

    def cpu(self):
        return self

    def float(self):
        return Tensor(self.values)

    def numpy(self):
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.values


Tensor.__module__ = "torch"


class LikeAnArray:
    """Anything with ``__array__``, and an index that is not the position."""

    def __array__(self, dtype=None, copy=None):
        return X


def shuffled_frame() -> pd.DataFrame:
    """``X`` in its rows, with an index that would undo their order."""
    order = np.array([2, 0, 3, 1])
    frame = pd.DataFrame(X[np.argsort(order)]).iloc[order]
    assert frame.index.tolist() == order.tolist()
    return frame


ARRAY_LIKES: dict[str, Any] = {
    "list": X.tolist(),
    "list of rows": list(X),
    "frame": shuffled_frame(),
    "frame of pandas' own type": shuffled_frame().astype("Float32"),
    "masked, but nothing is": np.ma.array(X, mask=False),
    "tensor": Tensor(X),
    "tensor of half precision": Tensor(X, "torch.bfloat16"),
    "other": LikeAnArray(),
    "jax": jnp.asarray(X),
    ">f4": X.astype(">f4"),
    ">f8": X.astype(">f8"),
    "longdouble": X.astype(np.longdouble),
}


@pytest.mark.parametrize("given", ARRAY_LIKES.values(), ids=ARRAY_LIKES)
def test_converted(given):
    batch = mm.Batch({"x": given})
    np.testing.assert_array_equal(batch.data["x"], X)
    assert jax.tree.leaves(jax.jit(lambda batch: batch)(batch))[0].dtype == jnp.float32
    rows = take(mm.MultimodalArrays({"x": given}), np.array([3, 0]))
    np.testing.assert_array_equal(rows.data["x"], X[[3, 0]])


def test_half_precision_of_another_byte_order():
    assert as_array("x", X.astype(">f2")).dtype == np.float16


def test_labels_masks_and_weights_by_position():
    index = [3, 1, 0, 2]
    data = mm.MultimodalArrays(
        {"x": X},
        labels=pd.Series([7, 8, 9, 5], index),
        mask={"x": pd.Series([True, False, True, True], index)},
        weight=[1.0, 2.0, 3.0, 4.0],
    )
    (batch,) = eval_batches(data, 4)
    assert batch.labels.tolist() == [7, 8, 9, 5]
    assert batch.mask["x"].tolist() == [True, False, True, True]
    assert batch.weight.tolist() == [1, 2, 3, 4]
    assert mm.Batch(data.data, data.mask).mask["x"].tolist() == [True, False, True, True]


def test_missing_cells_of_a_frame_are_nan():
    frame = pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": [True, False]})
    np.testing.assert_array_equal(as_array("x", frame), [[1, 1], [np.nan, 0]])


def test_rows_of_a_file_are_read_on_demand(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        column = file.create_dataset("x", data=X.astype(">f8"))
        data = mm.MultimodalArrays({"x": column})
        assert as_arrays(data).data["x"] is column
        rows = take(data, np.array([2, 2, 1])).data["x"]
        np.testing.assert_array_equal(mm.Batch({"x": column}).data["x"], X)
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows, X[[2, 2, 1]])


@pytest.mark.slow
def test_pytrees_of_array_likes():
    """Under a custom likelihood, in data sets as in batches."""

    def log_prob(decoded, x):
        return -(jnp.square(decoded - x["values"]) * x["parts"][0]).sum()

    class Encoder(nnx.Module):
        def __init__(self):
            self.out = nnx.Linear(3, 4, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return tuple(jnp.split(self.out(x["values"]), 2, axis=-1))

    config = CONFIG.replace(decoders_dist={"x": log_prob}, decoder_dist_params=None)
    model = mm.MMVAE(config, {"x": Encoder()}, rngs=nnx.Rngs(0))
    plain = {"x": {"values": X, "parts": (np.ones((4, 3), np.float32),)}}
    given = {"x": {"values": pd.DataFrame(X), "parts": (np.ones((4, 3), int).tolist(),)}}
    expected = mm.loss(model, mm.Batch(plain), jax.random.key(0))
    for container in (mm.Batch, mm.MultimodalArrays):
        data = container(given)
        assert num_examples(data) == 4
        np.testing.assert_allclose(mm.loss(model, data, jax.random.key(0)), expected, rtol=1e-6)
    state = mm.create_train_state(model, mm.make_optimizer(1e-3), key=jax.random.key(0))
    evaluate = inspect.unwrap(mm.evaluate)
    wanted, found = (evaluate(state, mm.MultimodalArrays(x), batch_size=4) for x in (plain, given))
    assert found == wanted
    result = mm.fit(state, mm.MultimodalArrays(given), num_steps=1, batch_size=4, progress=False)
    assert int(result.state.step) == 1
