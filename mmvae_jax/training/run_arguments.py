"""The arguments that a training run begins with, in words and numbers that JSON can hold."""

import importlib.metadata
import sys
from collections.abc import Mapping
from typing import Any

import grain
import jax
import numpy as np
import optax

from mmvae_jax.batch import AnyBatch
from mmvae_jax.likelihood_settings import columns_of
from mmvae_jax.maths.backward import Backward
from mmvae_jax.training.fingerprint import describe_data, fingerprint
from mmvae_jax.training.optimizer import Adam, hyperparams_of
from mmvae_jax.training.train_state import TrainState, config_of

#: Steps at which the values of a schedule stand for it.
SCHEDULE_STEPS = (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)


def arguments_of_run(
    state: TrainState,
    train_data: AnyBatch | grain.IterDataset,
    eval_data: AnyBatch | None,
    backward: Backward,
    *,
    has_overrides: bool,
) -> dict[str, Any]:
    """Returns the arguments of ``fit`` that a resumed run must give again.

    The values of injected hyperparameters are among them for a new state only: a state that was
    trained may have been given others on the way.
    """
    found: dict[str, Any] = {
        "optimizer": _optimizer(state.tx),
        "key": f"{jax.random.key_impl(state.key)} {jax.random.key_data(state.key).tolist()}",
        "backward": str(backward),
        "overrides": has_overrides,
        "code": _code(state),
    }
    if int(state.step) == 0:
        numbers = hyperparams_of(state.opt_state).items()
        found["hyperparams"] = {path: np.asarray(x).tolist() for path, x in numbers}
    for name, data in (("train_data", train_data), ("eval_data", eval_data)):
        if isinstance(data, AnyBatch):
            found[name] = describe_data(data)
    return found


def _optimizer(tx: optax.GradientTransformation) -> dict[str, Any] | str:
    if not isinstance(tx, Adam):
        return "custom"
    described = dict(tx.settings)
    if callable(rate := described["learning_rate"]):
        values = [f"{np.asarray(rate(step)):.5g} at {step}" for step in SCHEDULE_STEPS]
        described["learning_rate"] = f"schedule, {', '.join(values)}"
    return described


def _code(state: TrainState) -> dict[str, Any]:
    """Returns fingerprints of custom functions, which hold for these versions only."""
    config = config_of(state)
    likelihoods = {name: config.likelihood(name)[0] for name in config.modalities}
    custom: dict[str, Any] = {n: x for n, x in likelihoods.items() if not columns_of(x)}
    if not isinstance(config.prior_and_posterior_dist, str):
        custom["prior_and_posterior_dist"] = config.prior_and_posterior_dist
    if not isinstance(state.tx, Adam):
        custom["optimizer"] = tuple(state.tx)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "optax")]
    return {
        "versions": ", ".join([f"Python {sys.version_info[0]}.{sys.version_info[1]}", *versions]),
        "fingerprints": {name: fingerprint(x) for name, x in custom.items()},
    }


def comparable(
    saved: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the arguments that two runs can be compared by.

    Left out are those that only one knows, as older versions did not keep them, and fingerprints
    of code under different versions.
    """
    names = saved.keys() & given.keys()
    if "code" in names and saved["code"].get("versions") != given["code"].get("versions"):
        names -= {"code"}
    pairs = ({name: x[name] for name in x if name in names} for x in (saved, given))
    first, second = pairs
    return first, second
