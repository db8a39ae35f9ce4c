"""The arguments of ``mmvae encode`` and ``mmvae predict``, and the data that they name."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from tyro.conf import FlagCreatePairsOff, arg, create_mutex_group

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_count
from mmvae_jax.cli.arguments import Data, RowFile, RunFolder, Step, WeightingFlag, read_data
from mmvae_jax.cli.results import check_out_file
from mmvae_jax.estimator.run_folder import TrainedRun, open_run
from mmvae_jax.inference.selection import modality_names
from mmvae_jax.tables.examples import check_examples

_MEAN_OR_DRAWS = create_mutex_group(required=False, title="mean or draws")


class GivenRows(NamedTuple):
    """Checked inputs of a command.

    Attributes:
      run: the run, with no arrays read.
      given: modalities to encode.
      data: rows as examples of the model.
    """

    run: TrainedRun
    given: tuple[str, ...]
    data: MultimodalArrays


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromGiven:
    """Arguments of commands that encode the given modalities of rows."""

    run_dir: RunFolder
    data: Data
    out: Path
    """New .npz file for the results."""
    given: tuple[str, ...] = ()
    """Modalities to encode, by default all. A row uses the ones that it observes."""
    mean: Annotated[
        FlagCreatePairsOff[bool], _MEAN_OR_DRAWS, arg(help_behavior_hint="(default)")
    ] = False
    """One result per row, from the mean latent."""
    num_samples: Annotated[int | None, _MEAN_OR_DRAWS, arg(help_behavior_hint="")] = None
    """Draws per row, [rows, draws, ...] in the file. Images have no pixelwise noise."""
    weighting: WeightingFlag = "mixture"
    rows: RowFile = None
    step: Step = None
    seed: int = 0
    """Seed of the draws."""

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of the model's ``encode`` and ``predict``."""
        return {
            "num_samples": self.num_samples,
            "weighting": self.weighting,
            "seed": self.seed,
        }

    def open(self) -> GivenRows:
        """Returns the inputs, after a check of all arguments; errors are those of the files."""
        check_out_file(self.out)
        if self.num_samples is not None:
            check_count("--num-samples", self.num_samples)
        run = open_run(self.run_dir)
        given = modality_names("--given", self.given or "all", run.config)
        tables = read_data(self.data, self.rows)
        if not any(name in tables.modalities for name in given):
            raise ValueError(
                f"--given is {list(given)}: {tables.place} has only {list(tables.modalities)}"
            )
        return GivenRows(run, given, check_examples(tables, run.views))
