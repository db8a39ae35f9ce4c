"""``mmvae evaluate``: likelihoods and reconstruction errors, in the units of the data."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Float, PRNGKeyArray

import mmvae_jax as mm
from mmvae_jax.checks import check_count
from mmvae_jax.cli.arguments import Data, RunFolder, Step
from mmvae_jax.cli.dataset import check_examples
from mmvae_jax.cli.predict import predict_rows
from mmvae_jax.cli.run_folder import open_run
from mmvae_jax.data import num_examples, read_rows
from mmvae_jax.metrics import LogLikelihood, measure_log_likelihoods
from mmvae_jax.tables.reading import read_tables
from mmvae_jax.tables.tables import Tables
from mmvae_jax.tables.views import View

BATCH_SIZE = 128
#: A single object, because every new optimizer compiles ``mm.evaluate`` again.
NO_UPDATES = optax.identity()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure bound, log-likelihoods and reconstruction errors of data.

    Likelihoods are in nats per row, of the data in their own units. For a standardised row that is
    log p of (row - mean) / scale, minus the sum of log(scale); bytes have scale 255. Likelihoods
    are estimated by importance sampling, which is below the exact value on average. A row whose
    estimate is unreliable (its Pareto k-hat is above 0.7, or less for few particles) may be far
    below: use more particles.
    """

    run_dir: RunFolder
    data: Data
    step: Step = None
    num_particles: int = 1000
    """Particles of each likelihood estimate."""
    seed: int = 0
    """Seed of the particles."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> None:
        """Prints the measurements."""
        check_count("--num-particles", self.num_particles)
        run = open_run(self.run_dir)
        table = read_tables(self.data)
        data = check_examples(table, run.views)
        model, step = run.model(self.step)
        key = jax.random.key(self.seed)
        found = {
            "run": str(self.run_dir),
            "step": step,
            "data": table.place,
            "num_rows": table.num_rows,
            **likelihoods(model, run.views, data, key, num_particles=self.num_particles),
            "reconstruction_error": reconstruction_errors(model, run.views, table, data),
        }
        print(json.dumps(found, indent=2) if self.json else "\n".join(format_evaluation(found)))


def likelihoods(
    model: mm.MMVAE,
    views: Mapping[str, View],
    data: mm.MultimodalArrays,
    key: PRNGKeyArray,
    *,
    num_particles: int,
) -> dict[str, Any]:
    """Returns the config's bound, and log p of all observed modalities and of each by itself.

    Values are nats per row that observes the modality. The bound is None, and a likelihood is left
    out, if no row does. With rescaled likelihoods, the bound's change of units is rescaled too.
    """
    bound_key, key = jax.random.split(key)
    size = min(BATCH_SIZE, num_examples(data))
    state = mm.create_train_state(model, NO_UPDATES, key=bound_key)
    bound = -mm.evaluate(state, data, batch_size=size)["loss"]
    found = measure_log_likelihoods(model, data, key, K=num_particles, batch_size=size)
    shifts = _unit_shifts(views, data, model.config.likelihood_factors)
    log_p = {"joint": _summary(found.joint, _unit_shifts(views, data, dict.fromkeys(views, 1.0)))}
    for name, estimate in found.marginal.items():
        log_p[name] = _summary(estimate, np.array([views[name].log_det]))
    return {
        "bound": float(bound + shifts.mean()) if shifts.size else None,
        "log_likelihood": {name: row for name, row in log_p.items() if row["num_rows"]},
    }


def reconstruction_errors(
    model: mm.MMVAE, views: Mapping[str, View], table: Tables, data: mm.MultimodalArrays
) -> dict[str, dict[str, Any]]:
    """Returns the errors of the rows that the mean latent decodes to, for each observed modality.

    ``from_itself`` takes the latent of the modality's own posterior, ``from_others`` that of the
    mixture of the others. Each averages over the rows that observe both sides, None without any.
    """
    assert data.mask is not None, "make_examples gives a mask"
    errors: dict[str, dict[str, Any]] = {}
    for name in (name for name in views if data.mask[name].any()):
        others = [other for other in views if other != name]
        errors[name] = {"from_itself": None, "from_others": None}
        for field, given in (("from_itself", [name]), ("from_others", others)):
            seen = data.mask[name] & np.any([data.mask[other] for other in given], axis=0)
            if seen.any():
                found, _ = predict_rows(model, views, data, given=given, generate=[name])
                truth = read_rows(table.modalities[name].values, np.flatnonzero(seen))
                error, errors[name]["what"] = _error(views[name], found[name][seen], truth)
                errors[name][field] = float(error)
    return errors


def _unit_shifts(
    views: Mapping[str, View], data: mm.MultimodalArrays, factors: Mapping[str, float]
) -> Float[np.ndarray, " n"]:
    """``log p(row) - log p(input)`` of each row that observes anything."""
    assert data.mask is not None, "make_examples gives a mask"
    shifts = np.sum([factors[m] * views[m].log_det * data.mask[m] for m in views], axis=0)
    return shifts[np.any(list(data.mask.values()), axis=0)]


def _summary(estimate: LogLikelihood, shifts: Float[np.ndarray, " n"]) -> dict[str, Any]:
    """Returns the estimate after the change of units, without an error if that differs by row."""
    if not estimate.num_rows:
        return {"num_rows": 0}
    row = estimate.as_json() | {"mean": estimate.mean + float(shifts.mean())}
    if np.ptp(shifts) != 0:
        row["standard_error"] = None
    return {**row, "num_rows": estimate.num_rows}


def _error(view: View, found: np.ndarray, truth: np.ndarray) -> tuple[np.floating, str]:
    """Error of predicted rows, and the name of its measure."""
    if view.num_classes:
        return np.mean(found != truth), "share of wrong classes"
    distance = np.abs(found - truth) / view.scale
    if view.likelihood == "bernoulli":
        return np.mean(distance > 0.5), "share of wrong values"
    if view.is_image:
        return np.mean(distance), "mean absolute error, white is 1"
    return np.sqrt(np.mean(distance**2)), "root mean square, in standard deviations"


def format_evaluation(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of a table of the measurements."""
    yield f"{found['num_rows']} rows of {found['data']}, step {found['step']} of {found['run']}"
    yield f"\n{'nats per row':28}{'mean':>12}{'std. error':>12}{'rows':>8}{'unreliable':>12}"
    yield f"{'bound':28}{_cell(found['bound'])}"
    for name, row in found["log_likelihood"].items():
        title = "log p(all observed)" if name == "joint" else f"log p({name})"
        cells = _cell(row["mean"]) + _cell(row["standard_error"], ".2g")
        yield f"{title:28}{cells}{row['num_rows']:8}{row['unreliable']:12.0%}"
    yield f"\n{'reconstruction error':28}{'from itself':>12}{'from others':>12}"
    for name, row in found["reconstruction_error"].items():
        cells = _cell(row["from_itself"], ".3g") + _cell(row["from_others"], ".3g")
        yield f"{name:28}{cells}  {row['what']}"


def _cell(number: float | None, form: str = ".2f") -> str:
    return " " * 12 if number is None else f"{number:12{form}}"
