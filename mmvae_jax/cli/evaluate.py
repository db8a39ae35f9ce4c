"""``mmvae evaluate``: likelihoods and reconstruction errors, in the units of the data."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from tyro.conf import FlagCreatePairsOff

from mmvae_jax.checks import check_count
from mmvae_jax.cli.arguments import Data, RowFile, RunFolder, Step, read_data
from mmvae_jax.estimator.measurements import likelihoods, reconstruction_errors
from mmvae_jax.estimator.run_folder import open_run
from mmvae_jax.tables.examples import check_examples


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
    rows: RowFile = None
    step: Step = None
    num_particles: int = 1000
    """Particles of each likelihood estimate."""
    seed: int = 0
    """Seed of the particles."""
    json: FlagCreatePairsOff[bool] = False
    """Print JSON instead of a table."""

    def run(self) -> None:
        """Prints the measurements."""
        check_count("--num-particles", self.num_particles)
        run = open_run(self.run_dir)
        tables = read_data(self.data, self.rows)
        data = check_examples(tables, run.views)
        trained, step = run.load(self.step)
        key = jax.random.key(self.seed)
        found = {
            "run": str(self.run_dir),
            "step": step,
            "data": tables.place,
            "num_rows": tables.num_rows,
            **likelihoods(trained, tables, data, key, num_particles=self.num_particles),
            "reconstruction_error": reconstruction_errors(trained, tables, data),
        }
        print(json.dumps(found, indent=2) if self.json else "\n".join(format_evaluation(found)))


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
