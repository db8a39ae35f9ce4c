"""``mmvae train``: a model of a user's own arrays."""

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
from flax import nnx
from tyro.conf import Positional, arg, create_mutex_group

import mmvae_jax as mm
from mmvae_jax import loggers
from mmvae_jax.checks import check_count
from mmvae_jax.cli import run_folder
from mmvae_jax.cli.arguments import pairs, parse_likelihood
from mmvae_jax.cli.dataset import Prepared, check_names, prepare
from mmvae_jax.cli.figures import draw
from mmvae_jax.cli.networks import Networks
from mmvae_jax.cli.tables import read_table
from mmvae_jax.cli.views import View
from mmvae_jax.config import LOSSES
from mmvae_jax.data.arrays import num_examples
from mmvae_jax.saving.files import write_text
from mmvae_jax.training.loop import FitResult
from mmvae_jax.training.optimizer import make_optimizer

_LENGTH = create_mutex_group(required=False, title="length of the run")
#: Steps of a run that is told nothing else.
STEPS = 2000
#: The fewest steps between evaluations, and those between two looks at the metrics.
EVAL_EVERY, LOG_EVERY = 50, 10
#: Scales of normal and Laplace likelihoods: of intensities in 0 to 1, and of standardised columns.
IMAGE_SCALE, COLUMN_SCALE = 0.1, 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Train a model on arrays of your own, and leave all that other commands need in a folder.

    DATA holds one array per modality, named by it, row i of each being example i. A row is missing
    where it is NaN throughout, or where the array mask/NAME of booleans is False. Integers named
    labels are classes that only the figures show. The likelihood of a modality follows from its
    values: of booleans and 0/1 bernoulli; of uint8 images, and floats from 0 to 1 of the shape of
    images, laplace, on intensities; of other integers categorical; of other floats normal, every
    column standardised.
    """

    data: Annotated[Path, Positional, arg(metavar="DATA")]
    """An .npz file, or a folder of NAME.npy files, which are read a batch at a time."""
    out: Path
    """New folder for checkpoints, metrics, figures and a summary."""
    likelihood: Annotated[
        Mapping[str, str],
        pairs("NAME=LIKELIHOOD", parse_likelihood),
        arg(help_behavior_hint="(default: those that the values suggest)"),
    ] = dataclasses.field(default_factory=dict)
    """Likelihoods of modalities, such as age=normal."""
    scale: Annotated[
        Mapping[str, float],
        pairs("NAME=SCALE", float),
        arg(
            help_behavior_hint=f"(default: {IMAGE_SCALE} of the 0 to 1 of intensities, "
            f"{COLUMN_SCALE} standard deviations of columns)"
        ),
    ] = dataclasses.field(default_factory=dict)
    """Scales of normal and laplace likelihoods; smaller ones ask for more detail."""
    latent_dim: int = 10
    """Size of the latent variable."""
    K: int = 10
    """Particles drawn from each modality's posterior."""
    # Unbiased; the package's default, DReG, can diverge where posteriors become narrow.
    loss: Annotated[str, arg(metavar="|".join(LOSSES))] = "iwae_looser"
    """Bound (looser, tight or elbo) and gradient estimator."""
    beta: float = 1.0
    """Weight of log p(z) - log q(z|X) in the importance weights."""
    rescale: bool = False
    """Multiply each likelihood by (values of the largest modality) / (values of this one)."""
    networks: Literal["mlp", "conv"] = "mlp"
    """conv: convolutions for images of 20 pixels a side or more."""
    hidden: tuple[int, ...] = (256,)
    """Widths of an encoder's dense hidden layers, in reverse those of the decoder."""
    steps: Annotated[int | None, _LENGTH, arg(help_behavior_hint=f"(default: {STEPS})")] = None
    """Training steps."""
    epochs: Annotated[int | None, _LENGTH, arg(help_behavior_hint="")] = None
    """Times to go through the data, instead of steps."""
    batch_size: int = 128
    """Examples per step, or all if there are fewer."""
    learning_rate: float = 1e-3
    """Of Adam."""
    validation: float = 0.1
    """Share of rows, drawn at random, to find the best step with, by the loss on them."""
    patience: Annotated[int | None, arg(help_behavior_hint="(default: never)")] = None
    """Evaluations (one an epoch, or every 50 steps) without a better one after which to stop."""
    seed: int = 0
    """Of the split, initial parameters, order of the data and particles."""
    resume: bool = False
    """Go on with the run in --out, of the same data and settings; epochs or steps may be more."""
    quiet: bool = False
    """Show no progress bar."""

    def run(self) -> None:
        """Train, draw and sum up; nothing is written if anything is wrong."""
        start = time.perf_counter()
        run_folder.check_new(self.out, resume=self.resume)
        check_count("--batch-size", self.batch_size)
        if self.patience is not None and not self.validation:
            raise ValueError(f"--patience is {self.patience}, but --validation is 0: give a share")
        table = read_table(self.data)
        check_names("--scale names", self.scale, table.modalities)
        prepared = prepare(table, self.likelihood, validation=self.validation, seed=self.seed)
        print(_describe(prepared), flush=True)
        result = self._fit(prepared)
        run = run_folder.open_run(self.out)
        model, best = run.model(None)
        shown = prepared.validation or prepared.train
        draw(model, run.views, shown, self.out, jax.random.key(self.seed))
        summary = {
            "steps": int(result.state.step),
            "best_step": best,
            "validation_loss": run.saved.metrics(best).get("eval/loss"),
            "stopped_early": result.stopped_early,
            "num_parameters": sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))),
            "num_train": num_examples(prepared.train),
            "num_validation": num_examples(prepared.validation) if prepared.validation else 0,
            "seconds": round(time.perf_counter() - start, 1),
        }
        write_text(self.out / run_folder.SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
        print("\n".join(f"{name:16} {value}" for name, value in summary.items()))
        print("\n".join(map(str, sorted(self.out.iterdir()))))

    def _fit(self, prepared: Prepared) -> FitResult:
        views, config = prepared.views, self._config(prepared.views)
        networks = Networks(self.networks, self.hidden)
        init_key, train_key = jax.random.split(jax.random.key(self.seed))
        rngs = nnx.Rngs(init_key)
        model = mm.MMVAE(config, *networks.build(views, self.latent_dim, rngs), rngs=rngs)
        size = num_examples(prepared.train)
        batch_size = min(self.batch_size, size)
        return mm.fit(
            mm.create_train_state(model, make_optimizer(self.learning_rate), key=train_key),
            prepared.train,
            num_steps=STEPS if self.steps is None and self.epochs is None else self.steps,
            num_epochs=self.epochs,
            batch_size=batch_size,
            seed=self.seed,
            eval_data=prepared.validation,
            eval_every=None if prepared.validation is None else max(EVAL_EVERY, size // batch_size),
            patience=self.patience,
            checkpoint_dir=self.out / run_folder.CHECKPOINTS,
            resume=self.resume,
            settings=self._settings(prepared, networks),
            callbacks=[loggers.jsonl(self.out / run_folder.HISTORY_FILE)],
            log_every=LOG_EVERY,
            progress=not self.quiet,
        )

    def _config(self, views: Mapping[str, View]) -> mm.MMVAEConfig:
        usual = {
            name: IMAGE_SCALE if view.is_image else COLUMN_SCALE
            for name, view in views.items()
            if view.has_density
        }
        return mm.MMVAEConfig(
            input_dims={name: view.dim for name, view in views.items()},
            decoders_dist={name: view.likelihood for name, view in views.items()},
            decoder_dist_params={
                name: {"scale": scale} for name, scale in {**usual, **self.scale}.items()
            },
            uses_likelihood_rescaling=self.rescale,
            latent_dim=self.latent_dim,
            K=self.K,
            beta=self.beta,
            loss=self.loss,
        )

    def _settings(self, prepared: Prepared, networks: Networks) -> dict[str, Any]:
        """All that a resumed run must have in common with this one, besides the config."""
        modalities = prepared.table.modalities
        return {
            "data": {name: f"crc32 {found.crc32:08x}" for name, found in modalities.items()},
            "validation": self.validation,
            "learning_rate": self.learning_rate,
            **run_folder.told(prepared.views, networks),
        }


def _describe(prepared: Prepared) -> str:
    """What was found, as a table to print."""
    table = prepared.table
    held_out = 0 if prepared.validation is None else num_examples(prepared.validation)
    lines = [f"{table.path}: {table.num_rows} rows, {held_out} of them to validate on"]
    for name, view in prepared.views.items():
        kind, observed = f"{view.dtype}{list(view.shape)}", table.modalities[name].observed
        seen = "all rows" if observed.all() else f"{observed.sum()} rows"
        classes = f", {view.num_classes} classes" * bool(view.num_classes)
        lines.append(f"  {name:20} {kind:22} {seen:12} {view.likelihood}{classes}")
    return "\n".join(lines)
