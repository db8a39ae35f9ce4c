"""Coherence of what a trained model generates, by the classifiers of an experiment.

Coherences are in 0 to 1; all values are JSON.
"""

from collections.abc import Mapping

import jax
from jaxtyping import PRNGKeyArray

import mmvae_jax as mm
from experiments.experiment import Experiment
from experiments.image_measurements import CHUNK, Json
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.metrics import (
    Classifier,
    averages,
    coherence_by_size,
    cross_coherence_mean,
    measure_coherence,
    measure_joint_coherence,
)

Classifiers = Mapping[str, Classifier]


def measure_coherences(
    config: Experiment,
    model: mm.MMVAE,
    test: MultimodalArrays,
    classifiers: Classifiers,
    key: PRNGKeyArray,
) -> Json:
    """Returns coherences of generation from every subset of modalities and from the prior.

    ``conditional_coherence`` is the mean over all ordered pairs of different modalities.
    """
    conditional_key, joint_key = jax.random.split(key)
    num_classes = config.num_classes
    tallies = measure_coherence(
        model,
        test,
        classifiers,
        conditional_key,
        num_classes=num_classes,
        batch_size=CHUNK,
        weighting=config.weighting,
    )
    shares = averages(tallies)
    joint = measure_joint_coherence(
        model,
        classifiers,
        joint_key,
        num_samples=config.num_samples,
        num_classes=num_classes,
        batch_size=CHUNK,
    )
    pairs = {given[0]: row for given, row in shares.items() if len(given) == 1}
    macro = {given: row for given, row in averages(tallies, "macro").items() if len(given) == 1}
    return {
        "conditional_coherence": cross_coherence_mean(pairs),
        "conditional_coherence_macro": cross_coherence_mean(macro),
        "conditional_coherence_pairs": pairs,
        "conditional_coherence_by_size": coherence_by_size(shares),
        "conditional_coherence_subsets": {"+".join(given): row for given, row in shares.items()},
        "joint_coherence": joint.micro,
        "joint_coherence_macro": joint.macro,
        "joint_coherence_effective_classes": joint.effective_classes,
    }


def measure_samplers(
    config: Experiment,
    model: mm.MMVAE,
    train: MultimodalArrays,
    classifiers: Classifiers,
    key: PRNGKeyArray,
) -> dict[str, float]:
    """Returns the joint coherence of distributions of latents that are fitted to examples."""
    found = {}
    fits = {"gaussian_mixture": mm.fit_gaussian_mixture, "flow": mm.fit_flow}
    for number, (name, fit) in enumerate(fits.items()):
        fit_key, draw_key = jax.random.split(jax.random.fold_in(key, number))
        found[f"joint_coherence_{name}"] = measure_joint_coherence(
            model,
            classifiers,
            draw_key,
            num_samples=config.num_samples,
            num_classes=config.num_classes,
            batch_size=CHUNK,
            draw_latents=fit(model, train, fit_key).sample,
        ).micro
    return found
