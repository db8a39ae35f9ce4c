"""What a run leaves to look at: figures and a table."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray
from matplotlib.figure import Figure

import mmvae_jax as mm
from experiments.evaluation import labels_of, posterior_means
from mmvae_jax import plots
from mmvae_jax.data.arrays import MultimodalArrays, take
from mmvae_jax.data.polydigits import decode_words


def draw(
    model: mm.MMVAE,
    test: MultimodalArrays,
    history: Mapping[str, np.ndarray],
    key: PRNGKeyArray,
    *,
    num_samples: int = 20,
) -> dict[str, Figure]:
    """Returns figures by name.

    What is generated from each modality, for the first test example of every class; samples of
    the prior; the loss; and the posterior means of every modality of the test examples, laid out
    together in the plane and coloured by class.

    Args:
        model: a trained MMVAE.
        test: labelled examples.
        history: columns of history.jsonl.
        key: of the latents drawn.
        num_samples: samples of the prior to show.
    """
    grid_key, prior_key = jax.random.split(key)
    labels = labels_of(test)
    one_per_class = take(test, np.unique(labels, return_index=True)[1])
    generated = mm.reconstruct(model, mm.Batch(data=one_per_class.data), grid_key)
    means = posterior_means(model, test)
    points = plots.project_2d(np.concatenate(list(means.values())))
    latents = plots.latent_map(points, np.tile(labels, len(means)))
    latents.suptitle(f"posterior means of {', '.join(means)}", fontsize=10)
    return {
        "cross_generation": plots.cross_generation_grid(
            _drawable(model, one_per_class.data),
            {
                given: _drawable(model, {name: x[:, 0] for name, x in row.items()})
                for given, row in generated.items()
            },
        ),
        "prior_samples": plots.prior_samples(
            _drawable(model, mm.generate(model, prior_key, num_samples))
        ),
        "loss": plots.training_curve(history["step"], {"loss": history["loss"]}),
        "latents": latents,
    }


def table(metrics: Mapping[str, Any], *, num_classes: int) -> str:
    """Returns the summary to print: what was measured, beside what chance would give."""
    accuracies = list(metrics["classifier_accuracy"].values())
    chance = 1 / num_classes
    rows = [
        ("conditional coherence", metrics["conditional_coherence"], chance),
        ("joint coherence", metrics["joint_coherence"], chance ** (len(accuracies) - 1)),
        ("latent probe", metrics["latent_probe"], chance),
        ("classifiers on real examples", float(np.mean(accuracies)), chance),
    ]
    total = metrics["seconds"]["total"]
    lines = [
        f"{metrics['steps']} steps, {total:.0f} seconds on {metrics['device']}",
        f"{'test bound, nats':30}{metrics['test_bound']:9.1f}",
        f"{'':30}{'measured':>9}{'chance':>9}",
        *(f"{name:30}{value:9.3f}{chance:9.3g}" for name, value, chance in rows),
    ]
    return "\n".join(lines)


def _drawable(model: mm.MMVAE, decoded: Mapping[str, Any]) -> dict[str, Any]:
    """Images as arrays, words as strings."""
    arrays = {name: np.asarray(x) for name, x in decoded.items()}
    return {
        name: decode_words(x) if model.config.likelihood(name)[0] == "categorical" else x
        for name, x in arrays.items()
    }
