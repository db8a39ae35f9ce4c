"""Training of a model on tables."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Int

from mmvae_jax import loggers
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_modalities
from mmvae_jax.data.arrays import num_examples
from mmvae_jax.data.incomplete import missing_at_random
from mmvae_jax.estimator.measurements import bound
from mmvae_jax.estimator.networks import NetworkSettings
from mmvae_jax.estimator.run_folder import (
    CHECKPOINTS,
    HISTORY_FILE,
    SUMMARY_FILE,
    check_out,
    open_run,
    run_settings,
)
from mmvae_jax.estimator.settings import NUM_STEPS, TrainingSettings
from mmvae_jax.estimator.table_model import TableModel
from mmvae_jax.model import MMVAE
from mmvae_jax.saving.files import write_text
from mmvae_jax.tables.examples import make_examples, split_rows
from mmvae_jax.tables.mixed_selection import choose
from mmvae_jax.tables.mixed_view import AnyView, MixedView
from mmvae_jax.tables.tables import Tables
from mmvae_jax.training.fit_options import Checkpointing, Evaluation
from mmvae_jax.training.loop import FitResult, fit
from mmvae_jax.training.optimizer import make_optimizer
from mmvae_jax.training.train_state import create_train_state

#: Fewest steps between two evaluations, and steps between two logs of metrics.
EVAL_EVERY, LOG_EVERY = 50, 10


class TrainingData(NamedTuple):
    """Tables, split for training.

    Attributes:
      tables: the user's tables.
      views: conversion of each modality to the model's input.
      train: examples to train on.
      validation: examples to evaluate on; None without any.
      validation_rows: numbers of the rows to evaluate on.
    """

    tables: Tables
    views: dict[str, AnyView]
    train: MultimodalArrays
    validation: MultimodalArrays | None
    validation_rows: Int[np.ndarray, " v"]

    def lines(self) -> Iterator[str]:
        """Yields a line for the tables and a line per modality, with what it was taken for."""
        num_rows, held_out = self.tables.num_rows, len(self.validation_rows)
        yield f"{self.tables.place}: {num_rows} rows, {held_out} of them for validation"
        for name, view in self.views.items():
            taken_for = view.likelihood + " of log1p" * view.log1p
            library = "" if view.library_size is None else f", library size {view.library_size:g}"
            yield f"  {name:20} {taken_for:20} {self.tables.modalities[name].describe()}{library}"
            if isinstance(view, MixedView):
                for kind, columns in view.describe():
                    yield f"    {kind:18} {columns}"


def split_for_training(tables: Tables, settings: TrainingSettings) -> TrainingData:
    """Returns tables with a random share of their rows set aside, and views of the other rows.

    Raises:
      ValueError: naming the table, row or setting that is wrong.
    """
    settings.check()
    for field in ("likelihood", "preprocess", "scale", "library_size"):
        check_modalities(field, getattr(settings, field) or (), tables.modalities)
    rows, held_out = split_rows(tables.num_rows, settings.validation, settings.seed)
    views = {
        name: choose(
            table,
            rows,
            likelihood=(settings.likelihood or {}).get(name),
            transform=(settings.preprocess or {}).get(name),
            library_size=(settings.library_size or {}).get(name),
        )
        for name, table in tables.modalities.items()
    }
    train = make_examples(tables, views, rows)
    if settings.missing:
        train = missing_at_random(train, settings.missing, seed=settings.seed)
    if not len(held_out):
        return TrainingData(tables, views, train, None, held_out)
    validation = make_examples(tables, views, held_out)
    return TrainingData(tables, views, train, validation, held_out)


def train(
    data: TrainingData,
    settings: TrainingSettings,
    out: Path,
    *,
    resume: bool = False,
    progress: bool = False,
) -> tuple[TableModel, dict[str, Any]]:
    """Trains a model, and writes checkpoints, metrics and a summary into a folder.

    Returns:
      The model of the best evaluation, and the summary.

    Raises:
      ValueError: naming the setting that is wrong, before anything is written.
    """
    start = time.perf_counter()
    check_out(out, resume=resume)
    result = _fit(data, settings, out, resume=resume, progress=progress)
    run = open_run(out)
    trained, best = run.load()
    summary = {
        "steps": int(result.state.step),
        "best_step": best,
        "validation_bound": _validation_bound(trained, data, settings.seed),
        "stopped_early": result.stopped_early,
        "num_parameters": sum(x.size for x in jax.tree.leaves(nnx.state(trained.model, nnx.Param))),
        "num_train": num_examples(data.train),
        "num_validation": len(data.validation_rows),
        "seconds": round(time.perf_counter() - start, 1),
    }
    write_text(out / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    return trained, summary


def _fit(
    data: TrainingData, settings: TrainingSettings, out: Path, *, resume: bool, progress: bool
) -> FitResult:
    config = settings.config(data.views)
    networks = NetworkSettings(settings.networks, tuple(settings.hidden))
    init_key, train_key = jax.random.split(jax.random.key(settings.seed))
    rngs = nnx.Rngs(init_key)
    model = MMVAE(config, *networks.build(data.views, settings.latent_dim, rngs), rngs=rngs)
    size = num_examples(data.train)
    batch_size = min(settings.batch_size, size)
    evaluation = None
    if data.validation is not None:
        every = max(EVAL_EVERY, size // batch_size)
        evaluation = Evaluation(data=data.validation, every=every, patience=settings.patience)
    checkpointing = Checkpointing(
        directory=out / CHECKPOINTS,
        resume=resume,
        settings={
            "data": {
                name: f"crc32 {table.crc32:08x}" for name, table in data.tables.modalities.items()
            },
            "validation": settings.validation,
            "learning_rate": settings.learning_rate,
            "missing": settings.missing,
            **run_settings(data.views, networks),
        },
    )
    is_default_length = settings.num_steps is None and settings.num_epochs is None
    return fit(
        create_train_state(model, make_optimizer(settings.learning_rate), key=train_key),
        data.train,
        num_steps=NUM_STEPS if is_default_length else settings.num_steps,
        num_epochs=settings.num_epochs,
        batch_size=batch_size,
        seed=settings.seed,
        evaluation=evaluation,
        checkpointing=checkpointing,
        callbacks=[loggers.jsonl(out / HISTORY_FILE)],
        log_every=LOG_EVERY,
        progress=progress,
    )


def _validation_bound(trained: TableModel, data: TrainingData, seed: int) -> float | None:
    """Returns the bound of the validation rows, in nats per row in the units of the data."""
    if data.validation is None:
        return None
    key = jax.random.key(seed)
    return bound(trained, data.tables, data.validation, key, data.validation_rows)
