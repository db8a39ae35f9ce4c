"""``mmvae train``: a model of the user's own tables."""

import dataclasses
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

import mmvae_jax as mm
from mmvae_jax.cli.figures import draw
from mmvae_jax.estimator.run_folder import check_out
from mmvae_jax.estimator.settings import Settings
from mmvae_jax.estimator.training import split_for_training, train


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Train a model on your own tables, and write a folder that the other commands read.

    DATA holds one table per modality, under the modality's name. Rows are matched by the index of
    their tables, or by position. A row is missing if it is NaN throughout, or False in the boolean
    array mask/NAME; NaN cells of other rows are missing, too. A table named labels holds classes,
    which only colour the figures.

    Values decide the default likelihood of a modality:
    - categorical for text, for one column of at most 20 distinct whole numbers, and for several
      columns of integers from 0 to 19
    - bernoulli for booleans, and for numbers that are all 0 or 1
    - laplace for uint8 images, and for floats from 0 to 1 with the shape of an image
    - negative_binomial for several columns of whole numbers from 0 to above 19
    - normal for other numbers, every column standardised
    """

    data: Annotated[Path, Positional, arg(metavar="DATA")]
    """A file or a folder of files: .npz, .npy, .csv, .tsv, .parquet, .h5, .h5ad, .h5mu."""
    out: Path
    """New folder for checkpoints, metrics, figures and a summary."""
    modalities: tuple[str, ...] = ()
    """Modalities to train on, by default all."""
    settings: OmitArgPrefixes[Settings] = dataclasses.field(default_factory=Settings)
    resume: FlagCreatePairsOff[bool] = False
    """Continue the run in --out, with the same data and settings; --steps may be larger."""
    quiet: FlagCreatePairsOff[bool] = False
    """Show no progress bar."""

    def run(self) -> None:
        """Trains, draws and writes a summary; writes nothing if anything is wrong."""
        check_out(self.out, resume=self.resume)
        self.settings.check()
        tables = mm.read_tables(self.data, modalities=self.modalities or None)
        data = split_for_training(tables, self.settings)
        print("\n".join(data.lines()), flush=True)
        trained, summary = train(
            data, self.settings, self.out, resume=self.resume, progress=not self.quiet
        )
        key = jax.random.key(self.settings.seed)
        rows = data.validation_rows if len(data.validation_rows) else np.arange(tables.num_rows)
        draw(trained, tables, rows, self.out, key)
        print("\n".join(f"{name:16} {value}" for name, value in summary.items()))
        print("\n".join(map(str, sorted(self.out.iterdir()))))
