"""Measurements of a trained model, the content of ``metrics.json``.

All functions take complete test examples and return JSON values. Accuracies and coherences are in 0
to 1; bounds, log-likelihoods and divergences are in nats per example.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PRNGKeyArray

import mmvae_jax as mm
from experiments.coherence_measurements import Classifiers, measure_coherences, measure_samplers
from experiments.experiment import Experiment, ExperimentData, some_rows
from experiments.gradient_noise import measure_gradient_noise
from experiments.image_measurements import (
    CHUNK,
    Json,
    image_modalities,
    measure_frechet,
    measure_reconstructions,
)
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data import take
from mmvae_jax.generative import single_components
from mmvae_jax.metrics import (
    active_units,
    closed_form,
    cluster_latents,
    kl_between_experts,
    latent_probe,
    latents_of_experts,
    load_classifiers,
    load_inception,
    mean_variance,
    measure_log_likelihoods,
    measure_posterior_means,
    posteriors_of,
    score_clusters,
    train_classifier,
)


def measure(
    config: Experiment,
    state: mm.TrainState,
    model: mm.MMVAE,
    problem: ExperimentData,
    key: PRNGKeyArray,
) -> Json:
    """Returns all metrics of a model on the test examples of a problem.

    Args:
      config: settings of the experiment.
      state: train state, on a mesh or not, for the test bound.
      model: the model of that state.
      problem: data of the experiment.
      key: PRNG key.
    """
    bound_key, reconstruction_key, likelihood_key, gradient_key, *keys = jax.random.split(key, 11)
    classifier_key, coherence_key, frechet_key, inception_key, more_key, *keys = keys
    cluster_key, sampler_key = keys
    test = take(problem.test, some_rows(problem.test, config.num_test))
    loss = mm.evaluate(state, test, batch_size=config.batch_size, key=bound_key)["loss"]
    results = {
        "test_bound": -loss,
        "active_units": measure_active_units(model, test),
        "divergence": measure_mean_divergences(model, test),
        **measure_reconstructions(model, test, reconstruction_key),
    }
    if config.num_likelihood:
        some = take(test, some_rows(test, config.num_likelihood))
        results["log_likelihood"] = measure_likelihoods(
            model, some, likelihood_key, K=config.num_particles
        )
    if config.num_gradients:
        few = take(test, some_rows(test, config.batch_size))
        results["encoder_gradient"] = measure_gradient_noise(
            model, mm.Batch(few.data), gradient_key, num=config.num_gradients
        )
    if config.num_classes:
        classifiers = classifiers_of(config, problem.train, classifier_key)
        results |= {
            **measure_latents(model, problem.probe, test),
            **measure_clusters(model, test, cluster_key),
            "classifier_accuracy": accuracies(classifiers, test),
            **measure_coherences(config, model, test, classifiers, coherence_key),
        }
        if config.samplers:
            results |= measure_samplers(config, model, problem.probe, classifiers, sampler_key)
        seen = {name: classifiers[name].features for name in image_modalities(model.config)}
        results["frechet_classifier"] = measure_frechet(model, test, seen, frechet_key)
    if config.inception is not None:
        seen = dict.fromkeys(image_modalities(model.config), load_inception(config.inception))
        results["frechet_inception"] = measure_frechet(model, test, seen, inception_key)
    return results | config.measure_more(model, problem, test, more_key)


def classifiers_of(config: Experiment, train: MultimodalArrays, key: PRNGKeyArray) -> Classifiers:
    """Returns a classifier per modality, from the config's folder or newly trained."""
    if config.classifiers is not None:
        return load_classifiers(config.classifiers, config.model_config().input_dims)
    labels = labels_of(train)
    keys = jax.random.split(key, len(train.data))
    return {
        name: train_classifier(x, labels, num_classes=config.num_classes, key=key)
        for (name, x), key in zip(train.data.items(), keys, strict=True)
    }


def measure_latents(model: mm.MMVAE, train: MultimodalArrays, test: MultimodalArrays) -> Json:
    """Returns probe and clustering accuracies of the posterior means of u, per modality.

    Each ``latent_probe`` is fitted to training examples and scored on test examples. The clusters
    of test examples are from k-means, one per class.
    """
    fitted = latents_of_experts(model, train, batch_size=CHUNK)
    scored = latents_of_experts(model, test, batch_size=CHUNK)
    probes = {name: latent_probe(*fitted[name], *scored[name]) for name in scored}
    num_clusters = len(np.unique(labels_of(test)))
    clusters = {
        name: cluster_latents(z, labels, num_clusters=num_clusters).accuracy
        for name, (z, labels) in scored.items()
    }
    return {
        "latent_probe": float(np.mean(list(probes.values()))),
        "latent_probe_modalities": probes,
        "clustering_accuracy": clusters,
    }


def measure_clusters(model: mm.MMVAE, test: MultimodalArrays, key: PRNGKeyArray) -> Json:
    """Returns the agreement of the prior's clusters with the classes; nothing without clusters.

    An example belongs to its most probable cluster given all of its modalities. ``found`` is the
    number of clusters that have examples, and ``effective`` the exponential of the entropy of their
    shares.
    """
    if model.config.number_of_clusters == 1:
        return {}
    labels, chosen = labels_of(test), []
    rows = np.arange(len(labels))
    for number, start in enumerate(range(0, len(labels), CHUNK)):
        batch = mm.Batch(take(test, rows[start : start + CHUNK]).data)
        shares = mm.predict_clusters(model, batch, jax.random.fold_in(key, number))
        chosen.append(np.asarray(shares).argmax(1))
    clusters = np.concatenate(chosen)
    shares = np.unique(clusters, return_counts=True)[1] / len(clusters)
    return {
        "prior_clusters": {
            **score_clusters(clusters, labels)._asdict(),
            "found": len(shares),
            "effective": float(np.exp(-np.sum(shares * np.log(shares)))),
        }
    }


def measure_active_units(model: mm.MMVAE, test: MultimodalArrays) -> dict[str, int]:
    """Returns the number of active dimensions of u of each modality's posterior means."""
    spread = measure_posterior_means(model, test, batch_size=CHUNK).experts
    return {
        name: int(active_units(np.asarray(means.variance)).sum()) for name, means in spread.items()
    }


def measure_mean_divergences(model: mm.MMVAE, test: MultimodalArrays) -> Json:
    """Returns KL(q_m||q_j) and, as ``prior``, KL(q_m||p) of u, averaged over examples.

    Each q_m is the posterior given one modality by itself, with any ``aggregation``. A prior of
    several clusters has no closed form and is left out.
    """
    config = model.config
    family = config.prior_and_posterior_dist
    has_prior = config.number_of_clusters == 1
    targets = (*config.modalities, "prior") if has_prior else config.modalities
    loc, scale = config.axes.shared_part(model.pz_params)
    total = mean_variance(np.zeros((0, len(config.modalities), len(targets))))
    for _, (experts, mask) in posteriors_of(model, test, CHUNK):
        experts = single_components(model, experts)
        rows = np.asarray(kl_between_experts(family, experts, mask))
        if has_prior:
            distance = jnp.abs(experts.loc - loc[None, None])
            prior = closed_form(family)(distance, experts.scale, scale[None, None]).sum(-1)
            rows = np.concatenate([rows, np.asarray(prior)[:, None]], axis=1)
        total = total.merge(mean_variance(np.moveaxis(rows, 2, 0), np.asarray(mask)[0]))
    return {
        name: {target: float(x) for target, x in zip(targets, row, strict=True) if target != name}
        for name, row in zip(config.modalities, np.asarray(total.mean), strict=True)
    }


def measure_likelihoods(
    model: mm.MMVAE, test: MultimodalArrays, key: PRNGKeyArray, *, K: int
) -> Json:
    """Returns mean joint and marginal log-likelihoods, their standard errors and Pareto k-hats.

    ``pareto_k`` is the median over examples, and ``unreliable`` the share of examples whose
    estimate is not to be trusted.
    """
    found = measure_log_likelihoods(model, test, key, K=K)
    return {
        "joint": found.joint.as_json(),
        "marginal": {name: values.as_json() for name, values in found.marginal.items()},
        "num_examples": found.joint.num_rows,
        "K": K,
    }


def accuracies(classifiers: Classifiers, test: MultimodalArrays) -> dict[str, float]:
    """Returns each classifier's accuracy on real examples, an upper limit of coherence."""
    return {
        name: classifier.accuracy(test.data[name], labels_of(test))
        for name, classifier in classifiers.items()
    }


def labels_of(dataset: MultimodalArrays) -> Int[np.ndarray, " n"]:
    """Returns the class of every example.

    Raises:
      ValueError: if the dataset has no labels.
    """
    if dataset.labels is None:
        raise ValueError("labels is None: give the class of every example")
    return dataset.labels
