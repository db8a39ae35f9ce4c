"""Figures and printed summary of a finished run."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from matplotlib.figure import Figure

import mmvae_jax as mm
from experiments.experiment import ExperimentData, some_rows
from experiments.image_measurements import CHUNK, intensities
from experiments.measurements import labels_of
from mmvae_jax import plots
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data import take
from mmvae_jax.metrics import latents_of_experts, measure_log_weights, measure_responsibilities

#: Number of points per modality on the map of latents; t-SNE is slow for many points.
NUM_POINTS = 500
#: Largest number of classes to show.
MAX_CLASSES = 10
#: Number of examples for the figures of importance weights and responsibilities.
NUM_WEIGHED = 128


def draw(
    model: mm.MMVAE,
    problem: ExperimentData,
    history: Mapping[str, np.ndarray],
    results: Mapping[str, Any],
    key: PRNGKeyArray,
    *,
    num_samples: int = 20,
) -> dict[str, Figure]:
    """Returns figures of a trained model by name.

    ``cross_generation`` starts from the first test example of each of at most ten classes.
    ``prior_samples`` decodes draws from the prior, ``interpolation`` a line between two test
    examples. ``loss`` is the training curve, with a dot for the test loss. ``divergences``
    describes the posteriors of the modalities. ``responsibilities`` and ``weights`` describe the
    components of q(z|X) and the importance weights of their particles. ``latents`` maps the
    posterior means of test examples to the plane with t-SNE.

    Args:
      model: a trained MMVAE.
      problem: data of the experiment.
      history: columns of history.jsonl.
      results: metrics of the model, from ``measurements.measure``.
      key: PRNG key of the latents.
      num_samples: number of prior samples and of interpolation steps.
    """
    names = model.config.components
    grid_key, prior_key, weight_key, share_key = jax.random.split(key, 4)
    labels = labels_of(problem.test)
    first = np.unique(labels, return_index=True)[1][:MAX_CLASSES]
    shown = take(problem.test, np.flatnonzero(np.isin(labels, labels[first])))
    points = take(shown, some_rows(shown, NUM_POINTS))
    means = latents_of_experts(model, points, batch_size=CHUNK)
    weighed = mm.Batch(take(problem.test, some_rows(problem.test, NUM_WEIGHED)).data)
    shares = by_name(measure_responsibilities(model, weighed, share_key), names)
    samples = mm.generate(model, prior_key, num_samples)
    return {
        "cross_generation": cross_generation(model, problem, take(problem.test, first), grid_key),
        "prior_samples": plots.prior_samples(drawable(problem, samples)),
        "interpolation": interpolation(model, problem, *next(iter(means.values())), num_samples),
        "loss": loss_curve(history, -results["test_bound"]),
        "divergences": plots.divergence_bars(results["divergence"]),
        "responsibilities": plots.responsibilities(shares),
        "weights": plots.weight_histogram(measure_log_weights(model, weighed, weight_key), names),
        "latents": latents(means),
    }


def cross_generation(
    model: mm.MMVAE, problem: ExperimentData, examples: MultimodalArrays, key: PRNGKeyArray
) -> Figure:
    """Draws examples above one generation of every modality from each given modality."""
    config = model.config
    real = {name: intensities(config, name, examples) for name in config.modalities}
    generated = mm.reconstruct(model, mm.Batch(data=examples.data), key)
    return plots.cross_generation_grid(
        drawable(problem, real),
        {
            given: drawable(problem, {name: x[:, 0] for name, x in row.items()})
            for given, row in generated.items()
        },
    )


def latents(means: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Draws a t-SNE map of posterior means, given as latents and labels of each modality."""
    plane = plots.project_2d(np.concatenate([z for z, _ in means.values()]))
    labels = np.concatenate([labels for _, labels in means.values()])
    modalities = np.repeat([*means], [len(z) for z, _ in means.values()])
    return plots.latent_map(plane, labels, modalities.tolist())


def loss_curve(history: Mapping[str, np.ndarray], test_loss: float) -> Figure:
    """Draws the training loss, and the test loss at the last step."""
    steps = history["step"]
    test = np.where(np.arange(len(steps)) == len(steps) - 1, test_loss, np.nan)
    return plots.training_curve(steps, {"training": history["loss"], "test": test})


def interpolation(
    model: mm.MMVAE,
    problem: ExperimentData,
    z: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    num_steps: int,
) -> Figure:
    """Draws the images decoded between a latent of the lowest class and one of the highest.

    Private latents stay at 0, the location of their prior.
    """
    first, last = labels.argmin(), labels.argmax()
    line = plots.interpolate(z[first], z[last], num_steps)
    steps = mm.decode(model, jnp.pad(line, ((0, 0), (0, model.config.axes.num_private))))
    ends = [f"class {labels[first]}", f"class {labels[last]}"]
    return plots.latent_interpolation(drawable(problem, steps), ends=ends)


def by_name(table: Float[Array, "m j"], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Returns the rows of a table as nested dicts by name."""
    rows = np.asarray(table).tolist()
    return {m: dict(zip(names, row, strict=True)) for m, row in zip(names, rows, strict=True)}


def drawable(problem: ExperimentData, decoded: Mapping[str, Any]) -> dict[str, plots.Examples]:
    """Returns examples that can be drawn: images as arrays, text as strings."""
    arrays = {name: np.asarray(x) for name, x in decoded.items()}
    return {
        name: problem.texts[name](x) if name in problem.texts else x for name, x in arrays.items()
    }


def summary(metrics: Mapping[str, Any], *, num_classes: int) -> str:
    """Returns the main metrics as text, next to the values of a random classifier."""
    total = metrics["seconds"]["total"]
    lines = [
        f"{metrics['steps']} steps, {total:.0f} seconds on {metrics['device']}",
        f"{'test bound, nats':30}{metrics['test_bound']:9.1f}",
    ]
    if "log_likelihood" in metrics:
        joint = metrics["log_likelihood"]["joint"]
        lines.append(f"{'joint log-likelihood, nats':30}{joint['mean']:9.1f}")
        if "unreliable" in joint:
            lines.append(f"{'unreliable by Pareto k-hat':30}{joint['unreliable']:9.0%}")
    for pair, value in metrics.get("correlation", {}).items():
        lines.append(f"{'correlation, ' + pair:30}{value:9.3f}")
    if num_classes:
        accuracies = list(metrics["classifier_accuracy"].values())
        chance, joint_chance = (f"{num_classes**-n:.3g}" for n in (1, len(accuracies) - 1))
        effective_classes = metrics.get("joint_coherence_effective_classes", np.nan)
        rows = [
            ("conditional coherence", metrics["conditional_coherence"], chance),
            ("joint coherence", metrics["joint_coherence"], joint_chance),
            *(
                (f"joint coherence, {sampler.replace('_', ' ')}", metrics[field], joint_chance)
                for sampler in ("gaussian_mixture", "flow")
                if (field := f"joint_coherence_{sampler}") in metrics
            ),
            ("joint coherence, class mean", metrics["joint_coherence_macro"], joint_chance),
            ("effective classes among these", effective_classes, f"of {num_classes}"),
            ("latent probe", metrics["latent_probe"], chance),
            ("classifiers on real examples", float(np.mean(accuracies)), chance),
        ]
        lines.append(f"{'':30}{'measured':>9}{'chance':>9}")
        lines += [f"{name:30}{value:9.3f}{chance:>9}" for name, value, chance in rows]
    return "\n".join(lines)
