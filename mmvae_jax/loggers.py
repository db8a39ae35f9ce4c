"""Where the metrics of a training run go: functions ``(step, metrics, state) -> None``.

A training loop calls each of them with the step, a flat dict of scalars and the ``TrainState``,
which they read and do not keep.
"""

import importlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped, UInt8

from mmvae_jax.batch import AnyBatch, Batch, as_batch
from mmvae_jax.checks import check_count
from mmvae_jax.inference import reconstruct
from mmvae_jax.saving.files import write_text
from mmvae_jax.training.steps import TrainState

Logger: TypeAlias = Callable[[int, Mapping[str, Any], TrainState], None]
Image: TypeAlias = UInt8[np.ndarray, "_height _width 3"]
Images: TypeAlias = Callable[[TrainState], Mapping[str, Image]]


def jsonl(file: str | os.PathLike) -> Logger:
    """Append to a file with one JSON object per line, ``{"step": 10, "loss": 1.5, ...}``.

    Made for runs that are killed and go on: the first call drops what the file says of its own step
    and of later ones, and a last line that was never finished; every call leaves the file complete.
    Numbers read back as they were; NaN and the infinities are written as Python's ``json`` does.

    Raises:
      ValueError: when called, if the file holds lines that are not of this kind.

    >>> state = mm.create_train_state(model, tx, key=jax.random.key(0))
    >>> log = jsonl(folder / "history.jsonl")
    >>> log(10, {"loss": 1.5}, state)
    >>> read_jsonl(folder / "history.jsonl")["loss"]
    array([1.5])
    """
    path = Path(file)
    is_first = True

    def log(step: int, metrics: Mapping[str, Any], state: TrainState) -> None:
        nonlocal is_first
        if "step" in metrics:
            raise ValueError(f"metrics has {metrics['step']!r} under 'step': use another name")
        if is_first:
            _forget_from(path, step)
            is_first = False
        row = {"step": int(step)} | _scalars(metrics)
        with path.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(json.dumps(row) + "\n")

    return log


def read_jsonl(file: str | os.PathLike) -> dict[str, Shaped[np.ndarray, " rows"]]:
    """The columns of a file of ``jsonl``, NaN where a row lacks one.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming the line that is not of this kind.
    """
    rows = [row for _, row in _rows(Path(file))]
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: np.array([row.get(name, np.nan) for row in rows], int if name == "step" else float)
        for name in names
    }


def tensorboard(
    logdir: str | os.PathLike, *, images: Images | None = None, images_every: int = 1000
) -> Logger:
    """Write TensorBoard's event files with tensorboardX, to disk within seconds.

    A run that goes on hides what an earlier process logged of its first step and later ones.

    Args:
      logdir: of this run alone.
      images: pictures of a state by name, such as ``cross_generations``.
      images_every: steps between pictures, which are drawn at the first call and at the first one
        from every multiple on.

    Raises:
      ImportError: if tensorboardX is missing.
    """
    tensorboardX = _library("tensorboardX", "'mmvae_jax[tensorboard]'")
    draw = _now_and_then(images, images_every)
    writer = None

    def log(step: int, metrics: Mapping[str, Any], state: TrainState) -> None:
        nonlocal writer
        if writer is None:
            # Files are named after the second; what is there already must not be overwritten.
            suffix = f".{step}"
            writer = tensorboardX.SummaryWriter(
                os.fspath(logdir), purge_step=step, flush_secs=5, filename_suffix=suffix
            )
        for name, value in _scalars(metrics).items():
            writer.add_scalar(name, value, step)
        for name, image in draw(step, state).items():
            writer.add_image(name, image, step, dataformats="HWC")

    return log


def wandb(run: Any, *, images: Images | None = None, images_every: int = 1000) -> Logger:
    """Log to a run of Weights & Biases.

    W&B drops steps before the newest that the run has: a run that repeats steps keeps the values of
    the first time.

    Args:
      run: what ``wandb.init`` returned.
      images: as for ``tensorboard``.
      images_every: as for ``tensorboard``.

    Raises:
      ImportError: if wandb is missing.
    """
    client = _library("wandb", "'mmvae_jax[wandb]'")
    draw = _now_and_then(images, images_every)

    def log(step: int, metrics: Mapping[str, Any], state: TrainState) -> None:
        pictures = {name: client.Image(image) for name, image in draw(step, state).items()}
        run.log({**_scalars(metrics), **pictures}, step=step)

    return log


def mlflow(*, images: Images | None = None, images_every: int = 1000) -> Logger:
    """Log to the active run of MLflow, which keeps both values of a step that is repeated.

    Args:
      images: as for ``tensorboard``.
      images_every: as for ``tensorboard``.

    Raises:
      ImportError: if MLflow is missing.
      ValueError: if no run is active.
    """
    client = _library("mlflow", "'mmvae_jax[mlflow]'")
    if client.active_run() is None:
        raise ValueError("no run of MLflow is active: call mlflow.start_run() first")
    draw = _now_and_then(images, images_every)

    def log(step: int, metrics: Mapping[str, Any], state: TrainState) -> None:
        client.log_metrics(_scalars(metrics), step=step)
        for name, image in draw(step, state).items():
            client.log_image(image, key=name, step=step)

    return log


def cross_generations(batch: AnyBatch, key: PRNGKeyArray, num: int = 8) -> Images:
    """A picture of every modality generated from every other one (``plots.cross_generation_grid``).

    Rows are what was given, columns what was generated from it. The examples and the noise are the
    same whenever it is drawn. Modalities other than grey and RGB images are left out, and what is
    missing stays white.

    Args:
      batch: examples, the first of which are drawn.
      key: randomness.
      num: how many examples.

    Raises:
      ImportError: if matplotlib is missing.
      ValueError: if the batch has no images, or ``num`` is below 1.
    """
    check_count("num", num)
    batch = as_batch(batch)
    try:
        from mmvae_jax.plots import cross_generation_grid
    except ImportError as error:
        raise ImportError(
            "cross_generations draws with matplotlib: pip install 'mmvae_jax[experiments]'"
        ) from error
    names = [name for name, x in batch.data.items() if np.ndim(x) == 4 and x.shape[3] in (1, 3)]
    if not names:
        shapes = {name: np.shape(x) for name, x in batch.data.items()}
        raise ValueError(f"batch.data has the shapes {shapes}: give images, [b, h, w, 1 or 3]")
    few = jax.tree.map(lambda x: x[:num], batch)
    given = {name: _white_where_missing(few, name) for name in names}

    def draw(state: TrainState) -> dict[str, Image]:
        model = state.model()
        drawn = reconstruct(model, few, jax.random.clone(key))
        generated = {
            source: {
                target: _intensities(model.config.likelihood(target)[0], drawn[source][target])
                for target in names
            }
            for source in names
        }
        return {"cross_generations": _pixels(cross_generation_grid(given, generated))}

    return draw


def _library(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"this logger needs {name}: pip install {package}") from error


def _now_and_then(
    images: Images | None, images_every: int
) -> Callable[[int, TrainState], Mapping[str, Any]]:
    """The images at the first step and at the first one from every multiple on; else nothing."""
    check_count("images_every", images_every)
    latest = None

    def draw(step: int, state: TrainState) -> Mapping[str, Any]:
        nonlocal latest
        if images is None or step // images_every == latest:
            return {}
        latest = step // images_every
        return images(state)

    return draw


def _scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _forget_from(file: Path, step: int) -> None:
    """Leave of the file what it says of earlier steps."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = _rows(file) if file.exists() else []
    write_text(file, "".join(f"{line}\n" for line, row in rows if row["step"] < step))


def _rows(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """Every finished line and what it holds."""
    *lines, _ = file.read_text(encoding="utf-8").split("\n")
    return [(line, _row(file, number, line)) for number, line in enumerate(lines, start=1)]


def _row(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        row = None
    if not isinstance(row, dict) or "step" not in row:
        raise ValueError(
            f'{file} has {line[:60]!r} in line {number}, expected {{"step": ...}}: log to '
            "another file, or mend this one"
        )
    return row


def _white_where_missing(batch: Batch, name: str) -> Float[np.ndarray, "n h w c"]:
    scale = 255 if batch.data[name].dtype == np.uint8 else 1
    x = np.asarray(batch.data[name], np.float32) / scale
    if batch.mask is None:
        return x
    return np.where(np.asarray(batch.mask[name])[:, None, None, None], x, np.float32(1))


def _intensities(
    likelihood: Any, decoded: Float[Array, "n 1 h w c"]
) -> Float[np.ndarray, "n h w c"]:
    """One image per example, white (not NaN) where nothing was given."""
    x = jax.nn.sigmoid(decoded) if likelihood == "bernoulli" else decoded
    return np.nan_to_num(np.asarray(x[:, 0]), nan=1)


def _pixels(figure: Any) -> Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
