"""Bound, log-likelihoods and reconstruction errors of tables, in the units of the data."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Float, Int, PRNGKeyArray

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data.arrays import num_examples
from mmvae_jax.data.batching import eval_batches
from mmvae_jax.estimator.table_model import TableModel
from mmvae_jax.evidence.likelihood_estimates import compute_joint_nll
from mmvae_jax.inputs.masks import observed_rows
from mmvae_jax.metrics import LogLikelihood, measure_log_likelihoods
from mmvae_jax.tables.examples import check_examples
from mmvae_jax.tables.mixed_view import AnyView
from mmvae_jax.tables.tables import Tables
from mmvae_jax.tables.view_checks import in_order
from mmvae_jax.tables.views import View
from mmvae_jax.training.evaluation import evaluate
from mmvae_jax.training.train_state import create_train_state

BATCH_SIZE = 128
#: A single object, because every new optimizer compiles ``evaluate`` again.
NO_UPDATES = optax.identity()


def likelihoods(
    trained: TableModel,
    tables: Tables,
    data: MultimodalArrays,
    key: PRNGKeyArray,
    *,
    num_particles: int,
) -> dict[str, Any]:
    """Returns the config's bound, and log p of all observed modalities and of each by itself.

    ``data`` are all rows of the tables as examples of the model.

    Values are nats per row that observes the modality. The bound is None, and a likelihood is left
    out, if no row does. With rescaled likelihoods, the bound's change of units is rescaled too.
    """
    bound_key, key = jax.random.split(key)
    found = measure_log_likelihoods(
        trained.model, data, key, K=num_particles, batch_size=min(BATCH_SIZE, num_examples(data))
    )
    changes = unit_changes(trained.views, tables)
    log_p = {"joint": _summary(found.joint, _of_observed(data, sum(changes.values())))}
    for name, estimate in found.marginal.items():
        log_p[name] = _summary(estimate, changes[name][_mask(data)[name]])
    return {
        "bound": _bound(trained, data, bound_key, changes),
        "log_likelihood": {name: row for name, row in log_p.items() if row["num_rows"]},
    }


def bound(
    trained: TableModel,
    tables: Tables,
    data: MultimodalArrays,
    key: PRNGKeyArray,
    rows: Int[np.ndarray, " n"] | None = None,
) -> float | None:
    """Returns the config's bound in nats per row; None if no row observes anything.

    Args:
      trained: model.
      tables: the user's tables.
      data: rows of the tables as examples of the model.
      key: randomness.
      rows: numbers of these rows; None for all.
    """
    return _bound(trained, data, key, unit_changes(trained.views, tables, rows))


def _bound(
    trained: TableModel,
    data: MultimodalArrays,
    key: PRNGKeyArray,
    changes: Mapping[str, Float[np.ndarray, " n"]],
) -> float | None:
    """Returns the config's bound after the changes of units, by modality."""
    size = min(BATCH_SIZE, num_examples(data))
    state = create_train_state(trained.model, NO_UPDATES, key=key)
    value = -evaluate(state, data, batch_size=size)["loss"]
    factors = trained.model.config.likelihood_factors
    shifts = _of_observed(data, sum(factors[name] * x for name, x in changes.items()))
    return float(value + shifts.mean()) if shifts.size else None


def joint_log_likelihoods(
    trained: TableModel, tables: Tables, key: PRNGKeyArray, *, num_particles: int
) -> Float[np.ndarray, " n"]:
    """Returns log p of everything that each row observes, in nats; 0 where that is nothing."""
    data = check_examples(tables, trained.views)
    size = min(BATCH_SIZE, num_examples(data))
    log_p = [
        -np.asarray(
            compute_joint_nll(
                trained.model, batch, jax.random.fold_in(key, number), K=num_particles
            )
        )
        for number, batch in enumerate(eval_batches(data, size))
    ]
    shifts = sum(unit_changes(trained.views, tables).values())
    is_observed = np.any(list(_mask(data).values()), axis=0)
    return np.where(is_observed, np.concatenate(log_p)[: num_examples(data)] + shifts, 0.0)


def reconstruction_errors(
    trained: TableModel,
    tables: Tables,
    data: MultimodalArrays,
    rows: Int[np.ndarray, " n"] | None = None,
) -> dict[str, dict[str, Any]]:
    """Returns the errors of the rows that the mean latent decodes to, for each observed modality.

    ``from_itself`` takes the latent of the modality's own posterior, ``from_others`` that of the
    mixture of the others. Each averages over the rows that observe both sides, None without any.
    ``rows`` are the numbers of the rows of ``data`` in the tables, all by default.
    """
    mask = _mask(data)
    errors: dict[str, dict[str, Any]] = {}
    for name in (name for name in trained.views if mask[name].any()):
        view, others = trained.views[name], [other for other in trained.views if other != name]
        pieces = _pieces(name, view)
        for title in pieces:
            errors[title] = {"from_itself": None, "from_others": None}
        for field, given in (("from_itself", [name]), ("from_others", others)):
            seen = mask[name] & np.any([mask[other] for other in given], axis=0)
            if seen.any():
                found = trained.predict(data, given, [name]).rows[name][seen]
                places = np.flatnonzero(seen) if rows is None else rows[seen]
                truth = in_order(tables.modalities[name], view, places)
                for title, (part, columns) in pieces.items():
                    error, what = _error(part, found[columns], truth[columns])
                    errors[title] |= {field: float(error), "what": what}
    return errors


def _pieces(name: str, view: AnyView) -> dict[str, tuple[View, Any]]:
    """Returns the view of each kind of columns and their index, by name of the modality or kind."""
    if isinstance(view, View):
        return {name: (view, ...)}
    return {
        f"{name}, {', '.join(map(view.column_name, part.columns[:3]))}"
        + ", ..." * (len(part.columns) > 3): (part.view, np.s_[:, list(part.columns)])
        for part in view.parts
    }


def unit_changes(
    views: Mapping[str, AnyView], tables: Tables, rows: Int[np.ndarray, " n"] | None = None
) -> dict[str, Float[np.ndarray, " n"]]:
    """Returns ``log p(row) - log p(input)`` by modality, 0 where a row lacks it."""
    rows = np.arange(tables.num_rows) if rows is None else rows
    changes = {}
    for name, view in views.items():
        table = tables.modalities.get(name)
        if table is None or not view.has_density:
            changes[name] = np.zeros(len(rows))
        else:
            changes[name] = view.log_det(in_order(table, view, rows), table.observed[rows])
    return changes


def _mask(data: MultimodalArrays) -> Mapping[str, np.ndarray]:
    """Returns the rows of each modality that are observed."""
    assert data.mask is not None, "make_examples gives a mask"
    return {name: observed_rows(mask) for name, mask in data.mask.items()}


def _of_observed(data: MultimodalArrays, changes: Any) -> Float[np.ndarray, " n"]:
    """Returns the changes of the rows that observe anything."""
    return changes[np.any(list(_mask(data).values()), axis=0)]


def _summary(estimate: LogLikelihood, shifts: Float[np.ndarray, " n"]) -> dict[str, Any]:
    """Returns the estimate after the change of units, without an error if that differs by row."""
    if not estimate.num_rows:
        return {"num_rows": 0}
    row = estimate.as_json() | {"mean": estimate.mean + float(shifts.mean())}
    if np.ptp(shifts) > 1e-9:
        row["standard_error"] = None
    return {**row, "num_rows": estimate.num_rows}


def _error(view: View, found: np.ndarray, truth: np.ndarray) -> tuple[np.floating, str]:
    """Error of predicted rows, and the name of its measure."""
    seen = ~np.isnan(truth) if truth.dtype.kind == "f" else np.ones(truth.shape, bool)
    if view.num_classes:
        return np.mean((found != truth)[seen]), "share of wrong classes"
    if view.log1p:
        found, truth = np.log1p(found), np.log1p(truth)
    distance = np.abs(found - truth) / view.scale
    if view.likelihood == "bernoulli":
        return np.mean(distance[seen] > 0.5), "share of wrong values"
    if view.is_image:
        return np.nanmean(distance), "mean absolute error, white is 1"
    unit = "standard deviations" if view.has_density else "counts"
    return np.sqrt(np.nanmean(distance**2)), f"root mean square, in {unit}"
