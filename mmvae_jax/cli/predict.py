"""``mmvae predict``: modalities from others, in the units of the data."""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, arg

from mmvae_jax.checks import check_count
from mmvae_jax.cli.arguments import (
    MEAN_OR_DRAWS,
    Data,
    DrawSeed,
    RowFile,
    RunFolder,
    Step,
    WeightingFlag,
    read_data,
)
from mmvae_jax.cli.results import check_out_file, warn_of_unavailable, write_arrays
from mmvae_jax.estimator.run_folder import open_run
from mmvae_jax.inference.selection import modality_names
from mmvae_jax.tables.examples import check_examples
from mmvae_jax.tables.tables import MASK, PROBABILITIES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict:
    """Generate modalities from others, in the units and shapes of the data.

    Classes are integers, or the texts and numbers of the data, with their probabilities in
    probabilities/NAME unless there are draws. Other values are floats: bytes from 0 to 255,
    booleans as probabilities. A row that observes nothing of --given becomes NaN, or -1 or empty
    text for classes, and False in mask/NAME.
    """

    run_dir: RunFolder
    data: Data
    given: tuple[str, ...]
    """Modalities to predict from. A row is predicted from the ones that it observes."""
    generate: tuple[str, ...]
    """Modalities to predict."""
    out: Path
    """New .npz file for the predictions."""
    mean: Annotated[
        FlagCreatePairsOff[bool], MEAN_OR_DRAWS, arg(help_behavior_hint="(default)")
    ] = False
    """One value per row, decoded from the mean latent; of classes the most probable one."""
    num_samples: Annotated[int | None, MEAN_OR_DRAWS, arg(help_behavior_hint="")] = None
    """Draws per row, [rows, draws, ...] in the file. Images have no pixelwise noise."""
    weighting: WeightingFlag = "mixture"
    rows: RowFile = None
    step: Step = None
    seed: DrawSeed = 0

    def run(self) -> None:
        """Writes the file, or nothing if anything is wrong."""
        check_out_file(self.out)
        if self.num_samples is not None:
            check_count("--num-samples", self.num_samples)
        run = open_run(self.run_dir)
        given = modality_names("--given", self.given, run.config)
        generate = modality_names("--generate", self.generate, run.config)
        tables = read_data(self.data, self.rows)
        if not any(name in tables.modalities for name in given):
            raise ValueError(
                f"--given is {list(given)}: {tables.place} has only {list(tables.modalities)}"
            )
        rows, probabilities, available = run.load(self.step)[0].predict(
            check_examples(tables, run.views),
            given,
            generate,
            num_samples=self.num_samples,
            weighting=self.weighting,
            seed=self.seed,
        )
        arrays = rows | {PROBABILITIES + name: x for name, x in probabilities.items()}
        if not available.all():
            arrays |= {MASK + name: available for name in generate}
            placeholders = f"NaN there, -1 or empty text for classes, and False in {MASK}NAME"
            warn_of_unavailable(available, given, placeholders)
        write_arrays(self.out, arrays, shown=generate)
