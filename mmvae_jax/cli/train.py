"""``mmvae train``: a model of the user's own tables."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

import mmvae_jax as mm
from mmvae_jax.checks import check_at_least
from mmvae_jax.cli.arguments import RowFile, read_data
from mmvae_jax.cli.figures import draw
from mmvae_jax.estimator.run_folder import check_out, has_run, seed_folder, write_seeds
from mmvae_jax.estimator.settings import TrainingSettings
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
    - mixed for text among other columns, and for columns of 0 and 1, of at most 20 distinct whole
      numbers, or of counts beside measurements: one likelihood for each kind of column
    """

    data: Annotated[Path, Positional, arg(metavar="DATA")]
    """A file or a folder of files: .npz, .npy, .csv, .tsv, .parquet, .h5, .h5ad, .h5mu."""
    out: Path
    """New folder for checkpoints, metrics, figures and a summary."""
    modalities: tuple[str, ...] = ()
    """Modalities to train on, by default all."""
    settings: OmitArgPrefixes[TrainingSettings] = dataclasses.field(
        default_factory=TrainingSettings
    )
    rows: RowFile = None
    seeds: tuple[int, ...] = ()
    """Train once per seed, each in OUT/seed-N; other commands use the best of them."""
    resume: FlagCreatePairsOff[bool] = False
    """Continue the run in --out, with the same data and settings; --num-steps may be larger."""
    quiet: FlagCreatePairsOff[bool] = False
    """Show no progress bar."""

    def run(self) -> None:
        """Trains, draws and writes a summary; writes nothing if anything is wrong."""
        if self.seeds:
            for seed in self.seeds:
                check_at_least("--seeds", seed, 0)
        check_out(self.out, resume=self.resume, has_seeds=bool(self.seeds))
        self.settings.check()
        tables = read_data(self.data, self.rows, self.modalities)
        if not self.seeds:
            self._train(tables, self.settings, self.out, resume=self.resume)
            return
        bounds = {}
        for seed in self.seeds:
            settings = dataclasses.replace(self.settings, seed=seed)
            out = seed_folder(self.out, seed)
            # A command that was stopped may not have come to this seed.
            summary = self._train(tables, settings, out, resume=self.resume and has_run(out))
            bounds[seed] = summary["validation_bound"]
        write_seeds(self.out, bounds)
        values = np.array([value for value in bounds.values() if value is not None])
        if len(values) > 1:
            print(f"validation_bound {values.mean():.2f} +- {values.std(ddof=1):.2f} over seeds")

    def _train(
        self, tables: mm.Tables, settings: TrainingSettings, out: Path, *, resume: bool
    ) -> dict[str, Any]:
        """Trains with one seed, and returns the summary."""
        data = split_for_training(tables, settings)
        print("\n".join(data.lines()), flush=True)
        trained, summary = train(data, settings, out, resume=resume, progress=not self.quiet)
        key = jax.random.key(settings.seed)
        rows = data.validation_rows if len(data.validation_rows) else np.arange(tables.num_rows)
        draw(trained, tables, rows, out, key)
        print("\n".join(f"{name:16} {value}" for name, value in summary.items()))
        print("\n".join(map(str, sorted(out.iterdir()))))
        return summary
