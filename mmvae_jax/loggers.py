"""Loggers of a training run, callbacks ``(step, metrics, state) -> None`` of ``mm.fit``.

``metrics`` is a flat dict of scalars, and ``state`` a ``TrainState`` that a callback must not keep.
"""

import importlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped, UInt8

from mmvae_jax.batch import AnyBatch, Batch, as_batch
from mmvae_jax.checks import check_count
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.inference import expected_values, reconstruct
from mmvae_jax.inputs.keys import as_key
from mmvae_jax.inputs.masks import over_axes
from mmvae_jax.inputs.model_inputs import are_intensities
from mmvae_jax.inputs.paths import as_path
from mmvae_jax.likelihood_settings import columns_of, likelihood_of
from mmvae_jax.maths.likelihoods import SUPPORTS
from mmvae_jax.model import MMVAE
from mmvae_jax.saving.files import write_text
from mmvae_jax.training.train_state import TrainState

Logger: TypeAlias = Callable[[int, Mapping[str, Any], TrainState], None]
Image: TypeAlias = UInt8[np.ndarray, "_height _width 3"]
Images: TypeAlias = Callable[[TrainState], Mapping[str, Image]]


def jsonl(file: str | os.PathLike) -> Logger:
    """Returns a logger that appends JSON lines, ``{"step": 10, "loss": 1.5, ...}``, to a file.

    It suits runs that are killed and resumed. The first call drops rows of its own step and of
    later ones, and an unfinished last line; every call leaves the file complete. Numbers read back
    exactly, and NaN and infinities are written as Python's ``json`` does.

    Args:
      file: path of the file, which is created with its folder.

    Raises:
      ValueError: when called, if a metric is named "step", or the file has other lines.

    >>> state = mm.create_train_state(model, tx, key=jax.random.key(0))
    >>> log = jsonl(folder / "history.jsonl")
    >>> log(10, {"loss": 1.5}, state)
    >>> read_jsonl(folder / "history.jsonl")["loss"]
    array([1.5])
    """
    path = as_path(file, "file")
    is_first = True

    def log(step: int, metrics: Mapping[str, Any], state: TrainState) -> None:
        nonlocal is_first
        if "step" in metrics:
            raise ValueError(f"metrics['step'] is {metrics['step']!r}: use another name")
        if is_first:
            _drop_from(path, step)
            is_first = False
        row = {"step": int(step)} | _scalars(metrics)
        with path.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(json.dumps(row) + "\n")

    return log


def read_jsonl(file: str | os.PathLike) -> dict[str, Shaped[np.ndarray, " rows"]]:
    """Returns the columns of a file of ``jsonl``, NaN where a row lacks one.

    Args:
      file: path of the file; an unfinished last line is ignored.

    Returns:
      ``{name: [rows]}``, integers for "step" and floats for all others.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a line is not a JSON object with a step; the message names it.
    """
    rows = [row for _, row in _rows(as_path(file, "file"))]
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: np.array([row.get(name, np.nan) for row in rows], int if name == "step" else float)
        for name in names
    }


def tensorboard(
    logdir: str | os.PathLike, *, images: Images | None = None, images_every: int = 1000
) -> Logger:
    """Returns a logger to TensorBoard event files (extra ``tensorboard``).

    TensorBoard hides the rows of a killed process that a resumed one repeats.

    Args:
      logdir: folder for the event files of one run.
      images: function from a train state to pictures by name, such as ``cross_generations``.
      images_every: number of steps between pictures.
    """
    folder = as_path(logdir, "logdir")
    writers, client = [], _library("tensorboardX", "tensorboard")

    def write(step: int, row: dict[str, float], pictures: Mapping[str, Image]) -> None:
        if not writers:  # file names carry the second and the step: no process overwrites another
            options = {"purge_step": step, "flush_secs": 5, "filename_suffix": f".{step}"}
            writers.append(client.SummaryWriter(os.fspath(folder), **options))
        for name, value in row.items():
            writers[0].add_scalar(name, value, step)
        for name, pixels in pictures.items():
            writers[0].add_image(name, pixels, step, dataformats="HWC")

    return _logger(write, images, images_every)


def wandb(run: Any, *, images: Images | None = None, images_every: int = 1000) -> Logger:
    """Returns a logger to ``run`` of ``wandb.init`` (extra ``wandb``); see ``tensorboard``.

    W&B ignores steps before the newest one of the run, so repeated steps keep their first values.
    """
    client = _library("wandb", "wandb")

    def write(step: int, row: dict[str, float], pictures: Mapping[str, Image]) -> None:
        run.log(row | {name: client.Image(x) for name, x in pictures.items()}, step=step)

    return _logger(write, images, images_every)


def mlflow(*, images: Images | None = None, images_every: int = 1000) -> Logger:
    """Returns a logger to the active MLflow run (extra ``mlflow``); see ``tensorboard``.

    MLflow keeps both values of a repeated step.

    Raises:
      ValueError: if no run is active.
    """
    client = _library("mlflow", "mlflow")
    if client.active_run() is None:
        raise ValueError("mlflow.active_run() is None: call mlflow.start_run() first")

    def write(step: int, row: dict[str, float], pictures: Mapping[str, Image]) -> None:
        client.log_metrics(row, step=step)
        for name, pixels in pictures.items():
            client.log_image(pixels, key=name, step=step)

    return _logger(write, images, images_every)


def cross_generations(batch: AnyBatch, key: PRNGKeyArray, num: int = 8) -> Images:
    """Returns a function from a train state to a picture of every modality generated from each.

    The picture is a ``plots.cross_generation_grid`` of the grey and RGB images: a row per given
    modality, a column per generated one, missing images white. Means are shown; the largest given
    count of a modality of counts is white. Examples and noise are the same for every state.

    Args:
      batch: examples; the first ``num`` are drawn.
      key: randomness of the latents.
      num: number of examples.

    Returns:
      A function that returns ``{"cross_generations": pixels}``, uint8 of shape ``[h, w, 3]``.

    Raises:
      ImportError: if matplotlib is missing.
      ValueError: if the batch has no images, or ``num`` is below 1.
    """
    num = check_count("num", num)
    batch, key = as_batch(batch), as_key(key)
    try:
        from mmvae_jax.plots import cross_generation_grid
    except ImportError as error:
        raise ImportError("matplotlib is missing: pip install 'mmvae_jax[experiments]'") from error
    names = [name for name, x in batch.data.items() if np.ndim(x) == 4 and x.shape[3] in (1, 3)]
    if not names:
        shapes = {name: np.shape(x) for name, x in batch.data.items()}
        raise ValueError(f"batch.data has shapes {shapes}: give images, [b, h, w, 1 or 3]")
    few = jax.tree.map(lambda x: x[:num], batch)

    def draw(state: TrainState) -> dict[str, Image]:
        model = state.model()
        white = {name: _white(model.config, few, name) for name in names}
        given = {name: _white_where_missing(model.config, few, name, white[name]) for name in names}
        drawn = reconstruct(model, few, jax.random.clone(key))
        generated = {
            source: {
                target: _means(model, target, drawn[source][target], white[target])
                for target in names
            }
            for source in names
        }
        return {"cross_generations": _pixels(cross_generation_grid(given, generated))}

    return draw


def _library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is missing: pip install 'mmvae_jax[{extra}]'") from error


def _logger(write: Callable[..., None], images: Images | None, images_every: int) -> Logger:
    """Returns a callback that calls ``write(step, row, pictures)``, at times with pictures."""
    images_every = check_count("images_every", images_every)
    newest = -1  # the first row has pictures

    def log(step: int, metrics: Mapping[str, Any], state: TrainState) -> None:
        nonlocal newest
        pictures: Mapping[str, Image] = {}
        if images is not None and step // images_every > newest:
            newest, pictures = step // images_every, images(state)
        write(step, _scalars(metrics), pictures)

    return log


def _scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _drop_from(file: Path, step: int) -> None:
    """Drops the rows of this step and of later ones."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = _rows(file) if file.exists() else []
    write_text(file, "".join(f"{line}\n" for line, row in rows if row["step"] < step))


def _rows(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """Returns every finished line and its JSON object."""
    *lines, _ = file.read_text(encoding="utf-8").split("\n")
    return [(line, _row(file, number, line)) for number, line in enumerate(lines, start=1)]


def _row(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        row = None
    if not isinstance(row, dict) or "step" not in row:
        raise ValueError(
            f"line {number} of {file} is {line[:60]!r}: log to another file, or give it the form "
            '{"step": ...}'
        )
    return row


def _white(config: MMVAEConfig, batch: Batch, name: str) -> float:
    """Returns the value that is drawn white: the largest observed one of counts, otherwise 1."""
    if not any(SUPPORTS[kind].is_count for kind, _ in columns_of(config.likelihood(name)[0])):
        return 1.0
    x = np.asarray(batch.data[name], np.float32)
    return max(float(x.max(initial=0, where=_seen(batch, name))), 1.0)


def _seen(batch: Batch, name: str) -> Bool[np.ndarray, "n h w c"]:
    """Returns True for observed pixels."""
    shape = np.shape(batch.data[name])
    mask = np.ones(shape[:1], bool) if batch.mask is None else np.asarray(batch.mask[name])
    return np.broadcast_to(over_axes(mask, len(shape)), shape)


def _white_where_missing(
    config: MMVAEConfig, batch: Batch, name: str, white: float
) -> Float[np.ndarray, "n h w c"]:
    """Returns the given images, white where they are missing."""
    x = batch.data[name]
    scale = 255 if are_intensities(config, name, x.dtype) else white
    return np.where(_seen(batch, name), np.asarray(x, np.float32) / np.float32(scale), 1)


def _means(
    model: MMVAE, name: str, decoded: Float[Array, "n 1 h w c"], white: float
) -> Float[np.ndarray, "n h w c"]:
    """Returns one mean image per example, white where the given modality is missing (NaN).

    A likelihood without a mean has the decoded image.
    """
    if likelihood_of(model.config.likelihood(name)[0]).mean is not None:
        decoded = expected_values(model, {name: decoded})[name]
    return np.nan_to_num(np.asarray(decoded[:, 0]) / np.float32(white), nan=1)


def _pixels(figure: Any) -> Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
