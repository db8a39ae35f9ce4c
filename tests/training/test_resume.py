"""Resumed runs: other arguments than the run began with are refused, and a rate set in it stays."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mmvae_jax as mm
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.training.fingerprint import describe_data, fingerprint
from mmvae_jax.training.run_arguments import arguments_of_run
from mmvae_jax.training.run_settings import check_settings, write_settings

AUTO = mm.Backward()
DATA = mm.MultimodalArrays({"s": np.arange(60, dtype=np.float32).reshape(12, 5) / 60})


def power(exponent):
    def log_prob(decoded, x):
        return -(abs(decoded - x) ** exponent).sum()

    return log_prob


def make_state(tx=None, seed=3, likelihood: Any = "normal"):
    config = mm.MMVAEConfig(
        input_dims={"s": (5,)}, decoders_dist={"s": likelihood}, latent_dim=2, K=2
    )
    rngs = nnx.Rngs(0)
    encoder = MLPEncoder((5,), 2, hidden=(3,), rngs=rngs)
    decoder = MLPDecoder(2, (5,), hidden=(3,), rngs=rngs)
    model = mm.MMVAE(config, {"s": encoder}, {"s": decoder}, rngs=rngs)
    tx = mm.make_optimizer(1e-3) if tx is None else tx
    return mm.create_train_state(model, tx, key=jax.random.key(seed))


def arguments(state=None, data=DATA, eval_data=None, backward=AUTO, overrides=False):
    state = make_state() if state is None else state
    found = arguments_of_run(state, data, eval_data, backward, has_overrides=overrides)
    return json.loads(json.dumps(found))  # as a file holds it


SCHEDULES = [optax.linear_schedule(1e-3, 0.0, 1000), optax.linear_schedule(1e-3, 0.0, 1001)]
SCHEDULED = [mm.make_optimizer(schedule) for schedule in SCHEDULES]
DECAYED = [mm.make_optimizer(1e-3, weight_decay=w) for w in (0.0, 0.1, 0.2)]
CHANGED = DATA._replace(data={"s": DATA.data["s"] + np.eye(12, 5, dtype=np.float32)})

#: Arguments of two runs, and the name that the refusal has to say.
DIFFERENCES = {
    "rate": ({}, {"state": make_state(mm.make_optimizer(1e-4))}, "optimizer.learning_rate"),
    "schedule": (*({"state": make_state(tx)} for tx in SCHEDULED), "optimizer.learning_rate"),
    "decay": (*({"state": make_state(tx)} for tx in DECAYED[1:]), "optimizer.weight_decay"),
    "clipping": ({}, {"state": make_state(mm.make_optimizer(1e-3, clip_norm=1.0))}, "clip_norm"),
    "amsgrad": ({}, {"state": make_state(mm.make_optimizer(1e-3, amsgrad=True))}, "amsgrad"),
    "max_skips": ({}, {"state": make_state(mm.make_optimizer(1e-3, max_skips=2))}, "max_skips"),
    "other optimizer": ({}, {"state": make_state(optax.adam(1e-3))}, "optimizer"),
    "rate of another optimizer": (
        {"state": make_state(optax.adam(1e-3))},
        {"state": make_state(optax.adam(1e-4))},
        "code.fingerprints.optimizer",
    ),
    "key": ({}, {"state": make_state(seed=4)}, "key"),
    "backward": ({}, {"backward": mm.Backward("dense")}, "backward"),
    "overrides": ({}, {"overrides": True}, "overrides"),
    "number of examples": ({}, {"data": mm.data.take(DATA, np.arange(6))}, "num_examples"),
    "values": ({}, {"data": CHANGED}, "train_data.digest"),
    "mask": ({}, {"data": DATA._replace(mask={"s": np.arange(12) > 0})}, "train_data.digest"),
    "type": (
        {},
        {"data": DATA._replace(data={"s": np.zeros((12, 5), np.uint8)})},
        "train_data.modalities.s",
    ),
    "evaluation data": ({"eval_data": DATA}, {"eval_data": CHANGED}, "eval_data.digest"),
    "likelihood": (
        {"state": make_state(likelihood=power(1.0))},
        {"state": make_state(likelihood=power(2.0))},
        "code.fingerprints.s",
    ),
}


def refused(tmp_path, saved, given):
    write_settings(tmp_path, {"fit": saved})
    try:
        check_settings(tmp_path, {"fit": given})
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("case", DIFFERENCES)
def test_every_other_argument_is_refused(case, tmp_path):
    saved, given, name = DIFFERENCES[case]
    text = refused(tmp_path, arguments(**saved), arguments(**given))
    assert f"{name}" in text, text
    assert " there, " in text
    assert refused(tmp_path, arguments(**saved), arguments(**saved)) == ""


def test_older_runs_and_other_versions_are_not_compared(tmp_path):
    saved = arguments(make_state(likelihood=power(1.0)))
    saved["code"]["versions"] = "Python 3.9"
    assert refused(tmp_path, saved, arguments(make_state(likelihood=power(2.0)))) == ""
    assert refused(tmp_path / "old", {}, arguments()) == ""


def test_fingerprints_are_those_of_behaviour():
    scale = 2.0

    def by_closure(x):
        return scale * x

    def by_default(x, scale=2.0):
        return scale * x

    assert fingerprint(power(2.0)) == fingerprint(power(2.0)) != fingerprint(power(3.0))
    first = fingerprint(by_closure)
    scale = 3.0
    assert fingerprint(by_closure) != first
    before = fingerprint(by_default)
    by_default.__defaults__ = (3.0,)
    assert fingerprint(by_default) != before
    arrays = [fingerprint(power(np.full(3, w))) for w in (1.0, 1.0, 2.0)]
    assert arrays[0] == arrays[1] != arrays[2]
    assert fingerprint(jax.jit(power(2.0))) != fingerprint(jax.jit(power(3.0)))
    assert fingerprint(mm.Likelihood(power(2.0))) != fingerprint(mm.Likelihood(power(3.0)))


def test_large_data_are_read_in_part():
    class Counted:
        """A column that counts the rows that are read."""

        shape, dtype, num_read = (2**18, 32), np.dtype(np.float32), 0

        def __getitem__(self, index):
            self.num_read += np.size(index)
            return np.zeros((np.size(index), 32), np.float32)

    large = Counted()
    assert describe_data(mm.MultimodalArrays({"s": large}))["num_examples"] == 2**18
    assert 0 < large.num_read < 100


def fit(state, folder, num_steps, **options):
    rates = []
    result = mm.fit(
        state,
        DATA,
        num_steps=num_steps,
        batch_size=6,
        progress=False,
        log_every=1,
        checkpointing=mm.Checkpointing(directory=folder, resume=True),
        callbacks=[lambda step, metrics, state: rates.append(metrics["learning_rate"])],
        **options,
    )
    return result.state, rates


@pytest.mark.slow
def test_a_rate_set_in_mid_run_survives(tmp_path):
    """By a continued run, and by a process that starts again with the rate of the beginning."""
    state, rates = fit(make_state(), tmp_path / "run", 1)
    state = state.replace(
        opt_state=optax.tree.set(state.opt_state, learning_rate=jnp.float32(1e-5))
    )
    _, later = fit(state, tmp_path / "run", 2)
    _, last = fit(make_state(), tmp_path / "run", 3)
    np.testing.assert_allclose(rates + later + last, [1e-3, 1e-5, 1e-5], rtol=1e-5)
    wrong = make_state()
    number = jnp.float32(1e-5)  # before the first step, it is what the run begins with
    wrong = wrong.replace(opt_state=optax.tree.set(wrong.opt_state, learning_rate=number))
    for state in (make_state(mm.make_optimizer(1e-5)), wrong):
        with pytest.raises(ValueError, match=r"learning_rate: 0.001.* there, (1e-05|9.99.*) now"):
            fit(state, tmp_path / "run", 4)
