"""``mmvae encode``: latents of rows."""

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float
from tyro.conf import arg

import mmvae_jax as mm
from mmvae_jax.checks import check_count
from mmvae_jax.cli.arguments import (
    MEAN_OR_DRAWS,
    Data,
    DrawSeed,
    RunFolder,
    Step,
    WeightingFlag,
)
from mmvae_jax.cli.dataset import (
    available_rows,
    check_examples,
    device_calls,
    warn_of_unavailable,
)
from mmvae_jax.cli.run_folder import check_out_file, open_run
from mmvae_jax.data import take
from mmvae_jax.inference.selection import modality_names
from mmvae_jax.inference.weighting import Weighting
from mmvae_jax.saving.files import whole_file, write_npz
from mmvae_jax.tables.reading import read_tables
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
    mean: Annotated[bool, MEAN_OR_DRAWS, arg(help_behavior_hint="(default)")] = False
    """The mean latent of each row."""
    num_samples: Annotated[int | None, MEAN_OR_DRAWS, arg(help_behavior_hint="")] = None
    """Draws per row, [rows, draws, latent_dim] in the file."""
    weighting: WeightingFlag = "mixture"
    step: Step = None
    seed: DrawSeed = 0

    def run(self) -> None:
        """Writes the file, or nothing if anything is wrong."""
        check_out_file(self.out)
        run = open_run(self.run_dir)
        given = modality_names("--given", self.given or "all", run.config)
        table = read_tables(self.data)
        latents, available = encode_rows(
            run.model(self.step)[0],
            check_examples(table, run.views),
            given=given,
            num_samples=self.num_samples,
            weighting=self.weighting,
            seed=self.seed,
        )
        arrays = {LATENTS: latents}
        if not available.all():
            arrays[MASK + LATENTS] = available
            warn_of_unavailable(available, given, f"NaN there, and False in {MASK}{LATENTS}")
        with whole_file(self.out) as file:
            write_npz(file, arrays)
        print(f"{LATENTS}: {latents.dtype}{list(latents.shape)} in {self.out}")


def encode_rows(
    model: mm.MMVAE,
    data: mm.MultimodalArrays,
    *,
    given: tuple[str, ...],
    num_samples: int | None = None,
    weighting: Weighting = "mixture",
    seed: int = 0,
) -> tuple[Float[np.ndarray, "n *N d"], Bool[np.ndarray, " n"]]:
    """Encodes every row from the modalities that it observes.

    Returns:
      Mean latents ``[n, d]``, or ``[n, num_samples, d]`` of draws; NaN where nothing given is
      observed. And a mask ``[n]`` of the other rows.
    """
    is_mean = num_samples is None
    num = 1 if num_samples is None else num_samples
    check_count("--num-samples", num)
    available = available_rows(data, given)
    latents = np.full((len(available), num, model.config.latent_dim), np.nan, np.float32)
    for rows, key in device_calls(available, seed):
        latents[rows] = mm.encode(
            model,
            take(data, rows),
            key,
            cond_mod=given,
            N=num,
            return_mean=is_mean,
            weighting=weighting,
        )
    return latents[:, 0] if is_mean else latents, available
