"""What an experiment reports of a trained model: its bound, coherence and latents.

Every function takes complete examples of both splits and leaves the model as it is. A model's
own outputs become examples that a classifier can look at: intensities stay as decoded, logits
become the most probable one-hot vectors or pixels.
"""

from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

import mmvae_jax as mm
from mmvae_jax.data.arrays import MultimodalArrays, num_examples
from mmvae_jax.metrics.classifier import Classifier, train_classifier
from mmvae_jax.metrics.coherence import conditional_coherence, joint_coherence
from mmvae_jax.metrics.generation import as_examples
from mmvae_jax.metrics.probe import latent_probe

#: Examples that go through the networks at a time.
CHUNK = 512

Classifiers = Mapping[str, Classifier]
Classes = dict[str, Array | np.ndarray]


def train_classifiers(
    dataset: MultimodalArrays, num_classes: int, key: PRNGKeyArray
) -> dict[str, Classifier]:
    """Returns a classifier of each modality, trained on real examples."""
    labels, keys = labels_of(dataset), jax.random.split(key, len(dataset.data))
    return {
        name: train_classifier(x[:], labels, num_classes=num_classes, key=key)
        for (name, x), key in zip(dataset.data.items(), keys, strict=True)
    }


def classifier_accuracy(classifiers: Classifiers, dataset: MultimodalArrays) -> dict[str, float]:
    """Returns each classifier's accuracy on real examples, the ceiling of every coherence."""
    return {
        name: classifier.accuracy(dataset.data[name][:], labels_of(dataset))
        for name, classifier in classifiers.items()
    }


def measure_conditional_coherence(
    model: mm.MMVAE, dataset: MultimodalArrays, classifiers: Classifiers, key: PRNGKeyArray
) -> dict[str, dict[str, float]]:
    """Returns how often each modality, generated from one other, shows the class of that one.

    Protocol: one z per example and given modality, drawn from the given modality's own posterior;
    what is decoded from it is classified.
    """
    seen = []
    for i, batch in enumerate(_chunks(dataset, CHUNK)):
        generated = mm.reconstruct(model, batch, jax.random.fold_in(key, i))
        seen.append({given: _classes(model, row, classifiers) for given, row in generated.items()})
    predicted = jax.tree.map(lambda *parts: np.concatenate(parts)[:, 0], *seen)
    return conditional_coherence(predicted, labels_of(dataset))


def measure_joint_coherence(
    model: mm.MMVAE, classifiers: Classifiers, key: PRNGKeyArray, *, num_samples: int
) -> float:
    """Returns how often all the modalities decoded from one z of the prior show one class."""
    return joint_coherence(_classes(model, mm.generate(model, key, num_samples), classifiers))


def posterior_means(
    model: mm.MMVAE, dataset: MultimodalArrays
) -> dict[str, Float[np.ndarray, "n d"]]:
    """Returns the mean of each modality's own posterior, for every example."""
    return {
        name: np.concatenate(
            [
                mm.encode(model, batch, None, cond_mod=name, return_mean=True)[:, 0]
                for batch in _chunks(dataset, CHUNK)
            ]
        )
        for name in dataset.data
    }


def probe_modalities(
    model: mm.MMVAE, train: MultimodalArrays, test: MultimodalArrays
) -> dict[str, float]:
    """Returns the accuracy of a linear probe on each modality's posterior means.

    Protocol: one `latent_probe` per modality, fitted to the means of training examples and scored
    on those of test examples.
    """
    train_z, test_z = posterior_means(model, train), posterior_means(model, test)
    return {
        name: latent_probe(train_z[name], labels_of(train), test_z[name], labels_of(test))
        for name in test_z
    }


def labels_of(dataset: MultimodalArrays) -> Int[np.ndarray, " n"]:
    """Returns the class of every example.

    Raises:
        ValueError: if it is unknown.
    """
    if dataset.labels is None:
        raise ValueError("labels is None: coherence and probes need the class of every example")
    return dataset.labels


def _classes(
    model: mm.MMVAE, decoded: Mapping[str, Float[Array, "..."]], classifiers: Classifiers
) -> Classes:
    """Returns the class that every decoded example shows, whatever axes stand before it."""
    classes: Classes = {}
    for name, x in decoded.items():
        dim = model.config.input_dims[name]
        x = as_examples(model.config, name, x)
        seen = classifiers[name].predict(x.reshape(-1, *dim))
        classes[name] = np.asarray(seen).reshape(x.shape[: x.ndim - len(dim)])
    return classes


def _chunks(dataset: MultimodalArrays, size: int) -> Iterator[mm.Batch]:
    """The examples in order, `size` at a time; the last chunk holds the rest."""
    for start in range(0, num_examples(dataset), size):
        rows = slice(start, start + size)
        yield mm.Batch(data={name: x[rows] for name, x in dataset.data.items()})
