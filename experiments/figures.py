"""The figures that a run leaves, and what it prints at its end."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from matplotlib.figure import Figure

import mmvae_jax as mm
from experiments.experiment import Problem, some_rows
from experiments.measures import CHUNK, intensities, labels_of
from mmvae_jax import plots
from mmvae_jax.data.arrays import take
from mmvae_jax.metrics.particles import measure_log_weights, measure_responsibilities
from mmvae_jax.metrics.probe import latents_of_experts

#: Points of each modality on the map of latents: t-SNE takes long for many.
NUM_POINTS = 500
#: Classes to show, at most.
MAX_CLASSES = 10
#: Examples whose particles are weighed.
NUM_WEIGHED = 128


def draw(
    model: mm.MMVAE,
    problem: Problem,
    history: Mapping[str, np.ndarray],
    divergence: Mapping[str, Mapping[str, float]],
    key: PRNGKeyArray,
    *,
    num_samples: int = 20,
) -> dict[str, Figure]:
    """Returns figures by name.

    What is generated from each modality, for the first test example of every class; samples of
    the prior; the way between two examples of different classes; the loss; the divergences between
    the posteriors, their shares of each other's draws, and how evenly particles weigh; and the
    posterior means of every modality of test examples, laid out together in the plane and coloured
    by class. Of many classes the first ten are shown.

    Args:
      model: a trained MMVAE.
      problem: its data.
      history: columns of history.jsonl.
      divergence: of ``measures.measure_mean_divergences``.
      key: of the latents drawn.
      num_samples: samples of the prior, and steps of the way, to show.
    """
    names = model.config.modalities
    grid_key, prior_key, weight_key, share_key = jax.random.split(key, 4)
    labels = labels_of(problem.test)
    first = np.unique(labels, return_index=True)[1][:MAX_CLASSES]
    one_per_class = take(problem.test, first)
    batch = mm.Batch(data=one_per_class.data)
    generated = mm.reconstruct(model, batch, grid_key)
    shown = {name: intensities(model.config, name, one_per_class) for name in names}
    few = take(problem.test, np.flatnonzero(np.isin(labels, labels[first])))
    points = take(few, some_rows(few, NUM_POINTS))
    means = latents_of_experts(model, points, batch_size=CHUNK)
    plane = plots.project_2d(np.concatenate([z for z, _ in means.values()]))
    latents = plots.latent_map(plane, np.concatenate([classes for _, classes in means.values()]))
    latents.suptitle(f"posterior means of {', '.join(means)}", fontsize=10)
    weighed = mm.Batch(take(problem.test, some_rows(problem.test, NUM_WEIGHED)).data)
    log_w = measure_log_weights(model, weighed, weight_key)
    shares = by_name(measure_responsibilities(model, weighed, share_key), names)
    return {
        "cross_generation": plots.cross_generation_grid(
            drawable(problem, shown),
            {
                given: drawable(problem, {name: x[:, 0] for name, x in row.items()})
                for given, row in generated.items()
            },
        ),
        "prior_samples": plots.prior_samples(
            drawable(problem, mm.generate(model, prior_key, num_samples))
        ),
        "interpolation": interpolation(model, problem, *next(iter(means.values())), num_samples),
        "loss": plots.training_curve(history["step"], {"loss": history["loss"]}),
        "divergences": plots.divergence_bars(divergence),
        "responsibilities": plots.responsibilities(shares),
        "weights": plots.weight_histogram(log_w, names),
        "latents": latents,
    }


def interpolation(
    model: mm.MMVAE,
    problem: Problem,
    z: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    num_steps: int,
) -> Figure:
    """What is decoded on the way from a latent of the lowest class to one of the highest."""
    ends = z[labels.argmin()], z[labels.argmax()]
    steps = mm.decode(model, plots.interpolate(*ends, num_steps))
    return plots.latent_interpolation(drawable(problem, steps))


def by_name(table: Float[Array, "m j"], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The rows of a table of pairs of modalities."""
    rows = np.asarray(table).tolist()
    return {m: dict(zip(names, row, strict=True)) for m, row in zip(names, rows, strict=True)}


def drawable(problem: Problem, decoded: Mapping[str, Any]) -> dict[str, plots.Examples]:
    """Images as arrays, text as strings."""
    arrays = {name: np.asarray(x) for name, x in decoded.items()}
    return {
        name: problem.texts[name](x) if name in problem.texts else x for name, x in arrays.items()
    }


def summary(metrics: Mapping[str, Any], *, num_classes: int) -> str:
    """Returns what was measured, beside what chance would give."""
    total = metrics["seconds"]["total"]
    lines = [
        f"{metrics['steps']} steps, {total:.0f} seconds on {metrics['device']}",
        f"{'test bound, nats':30}{metrics['test_bound']:9.1f}",
    ]
    if "log_likelihood" in metrics:
        joint = metrics["log_likelihood"]["joint"]["mean"]
        lines.append(f"{'joint log-likelihood, nats':30}{joint:9.1f}")
    for pair, value in metrics.get("correlation", {}).items():
        lines.append(f"{'correlation, ' + pair:30}{value:9.3f}")
    if num_classes:
        accuracies = list(metrics["classifier_accuracy"].values())
        chance = 1 / num_classes
        rows = [
            ("conditional coherence", metrics["conditional_coherence"], chance),
            ("joint coherence", metrics["joint_coherence"], chance ** (len(accuracies) - 1)),
            ("latent probe", metrics["latent_probe"], chance),
            ("classifiers on real examples", float(np.mean(accuracies)), chance),
        ]
        lines.append(f"{'':30}{'measured':>9}{'chance':>9}")
        lines += [f"{name:30}{value:9.3f}{chance:9.3g}" for name, value, chance in rows]
    return "\n".join(lines)
