"""``mmvae encode``: latents of rows."""

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
from mmvae_jax.tables.tables import MASK

#: Name of the latents in the file.
LATENTS = "latents"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encode:
    """Write the latents of rows, [rows, latent_dim], as the array "latents" of an .npz file.

    A row that observes nothing of --given becomes NaN, and False in mask/latents.
    """

    run_dir: RunFolder
    data: Data
    out: Path
    """New .npz file for the latents."""
    given: tuple[str, ...] = ()
    """Modalities to encode, by default all. A row is encoded from the ones that it observes."""
    mean: Annotated[
        FlagCreatePairsOff[bool], MEAN_OR_DRAWS, arg(help_behavior_hint="(default)")
    ] = False
    """The mean latent of each row."""
    num_samples: Annotated[int | None, MEAN_OR_DRAWS, arg(help_behavior_hint="")] = None
    """Draws per row, [rows, draws, latent_dim] in the file."""
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
        given = modality_names("--given", self.given or "all", run.config)
        tables = read_data(self.data, self.rows)
        if not any(name in tables.modalities for name in given):
            raise ValueError(
                f"--given is {list(given)}: {tables.place} has only {list(tables.modalities)}"
            )
        latents, available = run.load(self.step)[0].encode(
            check_examples(tables, run.views),
            given,
            num_samples=self.num_samples,
            weighting=self.weighting,
            seed=self.seed,
        )
        arrays = {LATENTS: latents}
        if not available.all():
            arrays[MASK + LATENTS] = available
            warn_of_unavailable(available, given, f"NaN there, and False in {MASK}{LATENTS}")
        write_arrays(self.out, arrays, shown=[LATENTS])
