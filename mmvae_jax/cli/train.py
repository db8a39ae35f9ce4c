"""``mmvae train``: a model of the user's own arrays."""

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
from flax import nnx
from tyro.conf import Positional, arg, create_mutex_group

import mmvae_jax as mm
from mmvae_jax import loggers
from mmvae_jax.checks import check_count, check_modalities
from mmvae_jax.cli import run_folder
from mmvae_jax.cli.arguments import named_values, parse_likelihood
from mmvae_jax.cli.dataset import TrainingData, split_for_training
from mmvae_jax.cli.figures import draw
from mmvae_jax.cli.networks import NetworkSettings
from mmvae_jax.data import num_examples
from mmvae_jax.maths.losses import LOSSES
from mmvae_jax.saving.files import write_text
from mmvae_jax.tables.reading import read_tables
from mmvae_jax.tables.views import View
from mmvae_jax.training.loop import FitResult
from mmvae_jax.training.optimizer import make_optimizer

_LENGTH = create_mutex_group(required=False, title="length of the run")
#: Default number of steps.
STEPS = 2000
#: Fewest steps between two evaluations, and steps between two logs of metrics.
EVAL_EVERY, LOG_EVERY = 50, 10
#: Default scales of normal and Laplace likelihoods, of intensities and of standardised columns.
IMAGE_SCALE, COLUMN_SCALE = 0.1, 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Train a model on your own arrays, and write a folder that the other commands read.

    DATA holds one array per modality, under the modality's name. Row i of every array is example i.
    A row is missing if it is NaN throughout, or False in the boolean array mask/NAME. An integer
    array named labels holds classes, which only colour the figures.

    Values decide the default likelihood of a modality:
    - bernoulli for booleans, and for numbers that are all 0 or 1
    - laplace for uint8 images, and for floats from 0 to 1 with the shape of an image
    - categorical for other integers
    - normal for other floats, every column standardised
    """

    data: Annotated[Path, Positional, arg(metavar="DATA")]
    """An .npz file, or a folder of NAME.npy files, which are read a batch at a time."""
    out: Path
    """New folder for checkpoints, metrics, figures and a summary."""
    likelihood: Annotated[
        Mapping[str, str],
        named_values("NAME=LIKELIHOOD", parse_likelihood),
        arg(help_behavior_hint="(default: decided by the values)"),
    ] = dataclasses.field(default_factory=dict)
    """Likelihoods of modalities, such as age=normal."""
    scale: Annotated[
        Mapping[str, float],
        named_values("NAME=SCALE", float),
        arg(
            help_behavior_hint=f"(default: {IMAGE_SCALE} for images, whose intensities are 0 to 1; "
            f"{COLUMN_SCALE} standard deviations for columns)"
        ),
    ] = dataclasses.field(default_factory=dict)
    """Scales of normal and laplace likelihoods. A smaller scale asks for more detail."""
    learn_scale: bool = False
    """Train these scales from their values on: one for each column, one for all of an image."""
    latent_dim: int = 10
    """Size of the latent variable."""
    K: int = 10
    """Particles drawn from each modality's posterior."""
    loss: Annotated[str, arg(metavar="|".join(LOSSES))] = "adaptive_dreg_looser"
    """Gradient estimator and bound: *_looser, tight (no suffix) or elbo."""
    beta: float = 1.0
    """Weight of log p(z) - log q(z|X) in the importance weights."""
    rescale: bool = False
    """Multiply each likelihood by (values of the largest modality) / (values of this one)."""
    networks: Literal["mlp", "conv"] = "mlp"
    """conv: convolutions for images of 20 pixels a side or more."""
    hidden: tuple[int, ...] = (256,)
    """Widths of an encoder's dense hidden layers; the decoder has them in reverse."""
    steps: Annotated[int | None, _LENGTH, arg(help_behavior_hint=f"(default: {STEPS})")] = None
    """Training steps."""
    epochs: Annotated[int | None, _LENGTH, arg(help_behavior_hint="")] = None
    """Passes over the data, instead of steps."""
    batch_size: int = 128
    """Examples per step; all examples if there are fewer."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    validation: float = 0.1
    """Share of rows, drawn at random, whose loss decides the best step."""
    patience: Annotated[int | None, arg(help_behavior_hint="(default: never)")] = None
    """Stop after this many evaluations without a better one (one per epoch, or per 50 steps)."""
    seed: int = 0
    """Seed of the split, initial parameters, order of the data and particles."""
    resume: bool = False
    """Continue the run in --out, with the same data and settings; --steps may be larger."""
    quiet: bool = False
    """Show no progress bar."""

    def run(self) -> None:
        """Trains, draws and writes a summary; writes nothing if anything is wrong."""
        start = time.perf_counter()
        run_folder.check_out(self.out, resume=self.resume)
        check_count("--batch-size", self.batch_size)
        if self.patience is not None and not self.validation:
            raise ValueError(f"--patience is {self.patience}: give --validation a share above 0")
        table = read_tables(self.data)
        check_modalities("--scale", self.scale, table.modalities)
        data = split_for_training(
            table, self.likelihood, validation=self.validation, seed=self.seed
        )
        print("\n".join(_format_data(data)), flush=True)
        result = self._fit(data)
        run = run_folder.open_run(self.out)
        model, best = run.model(None)
        draw(model, run.views, data.validation or data.train, self.out, jax.random.key(self.seed))
        summary = {
            "steps": int(result.state.step),
            "best_step": best,
            "validation_loss": run.saved.metrics(best).get("eval/loss"),
            "stopped_early": result.stopped_early,
            "num_parameters": sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))),
            "num_train": num_examples(data.train),
            "num_validation": num_examples(data.validation) if data.validation else 0,
            "seconds": round(time.perf_counter() - start, 1),
        }
        write_text(self.out / run_folder.SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
        print("\n".join(f"{name:16} {value}" for name, value in summary.items()))
        print("\n".join(map(str, sorted(self.out.iterdir()))))

    def _fit(self, data: TrainingData) -> FitResult:
        views, config = data.views, self._config(data.views)
        networks = NetworkSettings(self.networks, self.hidden)
        init_key, train_key = jax.random.split(jax.random.key(self.seed))
        rngs = nnx.Rngs(init_key)
        model = mm.MMVAE(config, *networks.build(views, self.latent_dim, rngs), rngs=rngs)
        size = num_examples(data.train)
        batch_size = min(self.batch_size, size)
        every = max(EVAL_EVERY, size // batch_size)
        evaluation = None
        if data.validation is not None:
            evaluation = mm.Evaluation(data=data.validation, every=every, patience=self.patience)
        checkpointing = mm.Checkpointing(
            directory=self.out / run_folder.CHECKPOINTS,
            resume=self.resume,
            settings=self._settings(data, networks),
        )
        return mm.fit(
            mm.create_train_state(model, make_optimizer(self.learning_rate), key=train_key),
            data.train,
            num_steps=STEPS if self.steps is None and self.epochs is None else self.steps,
            num_epochs=self.epochs,
            batch_size=batch_size,
            seed=self.seed,
            evaluation=evaluation,
            checkpointing=checkpointing,
            callbacks=[loggers.jsonl(self.out / run_folder.HISTORY_FILE)],
            log_every=LOG_EVERY,
            progress=not self.quiet,
        )

    def _config(self, views: Mapping[str, View]) -> mm.MMVAEConfig:
        scales = {
            name: IMAGE_SCALE if view.is_image else COLUMN_SCALE
            for name, view in views.items()
            if view.has_density
        }
        params = {
            name: {"scale": self._scale(views[name], scale)}
            for name, scale in {**scales, **self.scale}.items()
        }
        return mm.MMVAEConfig(
            input_dims={name: view.dim for name, view in views.items()},
            decoders_dist={name: view.likelihood for name, view in views.items()},
            decoder_dist_params=params,
            uses_likelihood_rescaling=self.rescale,
            latent_dim=self.latent_dim,
            K=self.K,
            beta=self.beta,
            loss=self.loss,
        )

    def _scale(self, view: View, scale: float) -> float | mm.Learned:
        """Returns the entry of the config for the scale of a view's likelihood."""
        return mm.Learned(scale, per_feature=not view.is_image) if self.learn_scale else scale

    def _settings(self, data: TrainingData, networks: NetworkSettings) -> dict[str, Any]:
        """Settings besides the config that a resumed run must share."""
        modalities = data.table.modalities
        return {
            "data": {name: f"crc32 {array.crc32:08x}" for name, array in modalities.items()},
            "validation": self.validation,
            "learning_rate": self.learning_rate,
            **run_folder.run_settings(data.views, networks),
        }


def _format_data(data: TrainingData) -> Iterator[str]:
    """Yields a line for the table and a line per modality."""
    held_out = 0 if data.validation is None else num_examples(data.validation)
    yield f"{data.table.place}: {data.table.num_rows} rows, {held_out} of them for validation"
    for name, view in data.views.items():
        kind, observed = f"{view.dtype}{list(view.shape)}", data.table.modalities[name].observed
        rows = "all rows" if observed.all() else f"{observed.sum()} rows"
        classes = f", {view.num_classes} classes" * bool(view.num_classes)
        yield f"  {name:20} {kind:22} {rows:12} {view.likelihood}{classes}"
