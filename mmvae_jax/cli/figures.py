"""The figures that ``mmvae train`` writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib.image
import numpy as np
import optax
from jaxtyping import Int, PRNGKeyArray
from matplotlib.figure import Figure

import mmvae_jax as mm
from mmvae_jax import loggers, plots
from mmvae_jax.data import num_examples, take
from mmvae_jax.estimator.measurements import reconstruction_errors
from mmvae_jax.estimator.run_folder import HISTORY_FILE
from mmvae_jax.estimator.table_model import TableModel
from mmvae_jax.inputs.masks import observed_rows
from mmvae_jax.metrics import latents_of_experts
from mmvae_jax.tables.examples import make_examples
from mmvae_jax.tables.mixed_view import AnyView
from mmvae_jax.tables.views import View

#: Rows on the map of latents, and its fewest points: t-SNE is slow with many, and fails with few.
MAX_POINTS, MIN_POINTS = 500, 5
#: Rows in the grid of pictures.
NUM_PICTURES = 9


def draw(
    trained: TableModel,
    tables: mm.Tables,
    rows: Int[np.ndarray, " n"],
    folder: Path,
    key: PRNGKeyArray,
) -> None:
    """Writes figures into the folder of a run.

    They are the loss, a map of all modalities' posterior means (coloured by the labels, or by the
    modality of fewest classes), errors of predictions by modality, and images generated from each
    other (with images).
    """
    data = make_examples(tables, trained.views, rows)
    model, views = trained.model, trained.views
    assert data.mask is not None, "make_examples gives a mask"
    loss_curve(folder / HISTORY_FILE).savefig(folder / "loss.png", dpi=150)
    if len(views) > 1:
        errors = reconstruction_errors(trained, tables, data, rows)
        prediction_errors(errors).savefig(folder / "errors.png", dpi=150)
    some = take(data, np.arange(min(MAX_POINTS, num_examples(data))))
    some, names = _with_labels(some, tables.label_names, views)
    seen = {name: observed_rows(mask) for name, mask in data.mask.items()}
    if some.labels is not None and np.sum([x[:MAX_POINTS] for x in seen.values()]) >= MIN_POINTS:
        latent_map(model, some, names).savefig(folder / "latents.png", dpi=150)
    pictures = [
        name
        for name, view in views.items()
        if isinstance(view, View) and view.is_image and view.dim[2] in (1, 3)
    ]
    if pictures:
        fullest = np.argsort(-np.sum([seen[name] for name in pictures], axis=0), kind="stable")
        few = take(data, fullest[:NUM_PICTURES])
        paint = loggers.cross_generations(few, key, NUM_PICTURES)
        state = mm.create_train_state(model, optax.identity(), key=jax.random.key(0))
        for name, pixels in paint(state).items():
            matplotlib.image.imsave(folder / f"{name}.png", pixels)


def _with_labels(
    data: mm.MultimodalArrays, names: tuple[str, ...] | None, views: Mapping[str, AnyView]
) -> tuple[mm.MultimodalArrays, tuple[str, ...] | None]:
    """Returns data with labels, and the names of the classes, if anything has classes.

    These are the classes of the modality of one column that has the fewest if the data have no
    labels, -1 where it is missing.
    """
    found = {
        name: view
        for name, view in views.items()
        if isinstance(view, View) and view.num_classes and not view.shape
    }
    if data.labels is not None or not found:
        return data, names
    name, view = min(found.items(), key=lambda item: item[1].num_classes)
    assert data.mask is not None, "make_examples gives a mask"
    names = None if view.classes is None else tuple(map(str, view.classes))
    return data._replace(labels=np.where(data.mask[name], data.data[name], -1)), names


def prediction_errors(errors: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Returns the errors of each modality, decoded from itself and from the others."""
    figure = Figure(figsize=(6, 0.6 + 0.55 * len(errors)), layout="constrained")
    axes = figure.subplots()
    for shift, field in ((0.18, "from_itself"), (-0.18, "from_others")):
        places = [i + shift for i, row in enumerate(errors.values()) if row[field] is not None]
        values = [row[field] for row in errors.values() if row[field] is not None]
        axes.barh(places, values, height=0.34, label=field.replace("_", " "))
    titles = [f"{name}\n{row['what']}" for name, row in errors.items()]
    axes.set_yticks(range(len(errors)), titles, fontsize="small")
    axes.set_xlabel("error of the decoded mean latent, validation rows")
    axes.legend(fontsize="small", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def loss_curve(history: Path) -> Figure:
    """Returns the loss of training steps and of evaluations."""
    columns = loggers.read_jsonl(history)
    titles = {"loss": "training", "eval/loss": "validation"}
    lines = {title: columns[name] for name, title in titles.items() if name in columns}
    return plots.training_curve(columns["step"], lines)


def latent_map(model: mm.MMVAE, data: mm.MultimodalArrays, names: Sequence[str] | None) -> Figure:
    """Returns a map of the posterior means of every modality, coloured by class."""
    means = latents_of_experts(model, data)
    means = {name: (z[labels >= 0], labels[labels >= 0]) for name, (z, labels) in means.items()}
    plane = plots.project_2d(np.concatenate([z for z, _ in means.values()]))
    labels = np.concatenate([labels for _, labels in means.values()])
    modalities = np.repeat([*means], [len(z) for z, _ in means.values()])
    return plots.latent_map(plane, labels, modalities.tolist(), names=names)
