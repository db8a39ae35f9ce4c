"""Values that no likelihood can have are found, with their row, before anything is computed."""

import inspect

import grain
import jax
import numpy as np
import pytest
from flax import nnx

import mmvae_jax as mm
from mmvae_jax.data import IndexedColumn
from mmvae_jax.metrics import measure_log_likelihoods, posteriors_of

SIZE = 8
DIMS = {"ok": (2,), "lab": (3,), "bits": (4,)}
CONFIG = mm.MMVAEConfig(input_dims=DIMS, decoders_dist={"bits": "bernoulli"}, latent_dim=2, K=2)


def dataset(name: str = "lab", row: int = 5, value: float = np.nan) -> mm.MultimodalArrays:
    """Ones, but for one value."""
    data = {name: np.ones((SIZE, *dim), np.float32) for name, dim in DIMS.items()}
    data[name][row, 1] = value
    return mm.MultimodalArrays(data, labels=np.arange(SIZE))


GOOD = dataset(value=1)
QUIET = {"num_steps": 2, "batch_size": SIZE, "progress": False}


@pytest.fixture(scope="module")
def model():
    return mm.MMVAE(CONFIG, rngs=nnx.Rngs(0))


@pytest.fixture
def state(model):
    return mm.create_train_state(model, mm.make_optimizer(1e-3), key=jax.random.key(0))


def in_a_file(data: mm.MultimodalArrays) -> mm.MultimodalArrays:
    """The same rows, read when they are needed."""
    rows = np.arange(SIZE)
    return data._replace(data={name: IndexedColumn(x, rows) for name, x in data.data.items()})


@pytest.mark.parametrize("place", [lambda data: data, in_a_file])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dataset(), r"train_data.data\['lab'\] is nan in row 5: mask the modality in this row"),
        (dataset("ok", 7, np.inf), r"train_data.data\['ok'\] is inf in row 7"),
        (dataset("bits", 0, 255), r"train_data.data\['bits'\] is 255 in row 0: a bernoulli"),
    ],
)
def test_fit_names_the_row_of_its_data(state, data, message, place):
    """Of data in memory before the first step, of others when they are read."""
    with pytest.raises(ValueError, match=message):
        mm.fit(state, place(data), **QUIET)


def test_fit_names_the_row_of_a_pipeline(state):
    batches = [mm.Batch(dataset().data)] * 2
    with pytest.raises(ValueError, match=r"train_data.data\['lab'\] is nan in row 5 of the batch"):
        mm.fit(state, grain.MapDataset.source(batches).to_iter_dataset(), **QUIET)


def test_fit_names_the_row_of_its_evaluation(state):
    with pytest.raises(ValueError, match=r"eval_data.data\['lab'\] is nan in row 5"):
        mm.fit(state, GOOD, evaluation=mm.Evaluation(data=dataset()), **QUIET)


def test_evaluations_name_the_row(model, state):
    data = in_a_file(dataset())
    message = r"data\['lab'\] is nan in row 5: mask the modality"
    with pytest.raises(ValueError, match=message):
        mm.evaluate(state, data, batch_size=2)
    with pytest.raises(ValueError, match=message):
        measure_log_likelihoods(model, data, jax.random.key(0), K=2, batch_size=8)
    with pytest.raises(ValueError, match=message):
        list(inspect.unwrap(posteriors_of)(model, data, 8))


@pytest.mark.parametrize("call", [mm.loss, mm.value_and_grad, mm.encode, mm.compute_joint_nll])
def test_functions_of_a_batch_name_the_row(model, call):
    for convert in (np.asarray, jax.numpy.asarray):
        batch = mm.Batch(jax.tree.map(convert, dataset().data))
        with pytest.raises(ValueError, match=r"batch.data\['lab'\] is nan in row 5 of the batch"):
            call(model, batch, jax.random.key(0))


def test_several_steps_name_the_batch(state):
    """The first wrong batch of the call; nothing is computed, and the state stays."""
    batches = [GOOD, dataset("bits", 3, 2.0), dataset()]
    stacked = jax.tree.map(lambda *x: np.stack(x), *(mm.Batch(data.data) for data in batches))
    with pytest.raises(ValueError, match=r"batches\[1\].data\['bits'\] is 2 in row 3 of the batch"):
        mm.train_steps(state, stacked)
    assert int(state.step) == 0


@pytest.mark.parametrize("step", [mm.train_step, mm.eval_step])
def test_steps_name_the_row(state, step):
    with pytest.raises(ValueError, match=r"batch.data\['lab'\] is nan in row 5 of the batch"):
        step(state, mm.Batch(dataset().data))


def test_rows_that_miss_a_modality_are_not_checked(state):
    seen = {name: np.ones(SIZE, bool) for name in DIMS}
    seen["lab"][5] = False
    assert np.isfinite(mm.evaluate(state, dataset()._replace(mask=seen), batch_size=8)["loss"])
