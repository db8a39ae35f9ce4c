"""Metrics of a trained model: likelihoods, coherence, latents and generated images.

Functions named ``measure_*`` take a model and examples; the others take arrays. scikit-learn and
pytorch-fid are imported only by the functions that need them.
"""

from mmvae_jax.metrics.activity import PosteriorMeans, active_units, measure_posterior_means
from mmvae_jax.metrics.classifier import (
    Classifier,
    load_classifier,
    load_classifiers,
    train_classifier,
)
from mmvae_jax.metrics.clustering import (
    Clustering,
    cluster_latents,
    matched_accuracy,
    score_clusters,
)
from mmvae_jax.metrics.coherence import (
    Tally,
    averages,
    coherence_by_size,
    conditional_coherence,
    conditional_tallies,
    cross_coherence_mean,
    joint_coherence,
    joint_tally,
    subsets,
)
from mmvae_jax.metrics.divergences import closed_form, kl_between_experts
from mmvae_jax.metrics.expert_posteriors import Posteriors, posteriors, posteriors_of
from mmvae_jax.metrics.frechet import frechet_distance
from mmvae_jax.metrics.generation import (
    Generation,
    Predictor,
    as_examples,
    generations,
    measure_coherence,
    measure_joint_coherence,
)
from mmvae_jax.metrics.images import mse, ssim
from mmvae_jax.metrics.inception import load_inception
from mmvae_jax.metrics.likelihood import (
    LogLikelihood,
    LogLikelihoods,
    bits_per_dim,
    measure_log_likelihoods,
)
from mmvae_jax.metrics.moments import MeanCovariance, MeanVariance, mean_covariance, mean_variance
from mmvae_jax.metrics.particles import measure_log_weights, measure_responsibilities
from mmvae_jax.metrics.probe import latent_probe, latents_of_experts

__all__ = [
    "Classifier",
    "Clustering",
    "Generation",
    "LogLikelihood",
    "LogLikelihoods",
    "MeanCovariance",
    "MeanVariance",
    "PosteriorMeans",
    "Posteriors",
    "Predictor",
    "Tally",
    "active_units",
    "as_examples",
    "averages",
    "bits_per_dim",
    "closed_form",
    "cluster_latents",
    "coherence_by_size",
    "conditional_coherence",
    "conditional_tallies",
    "cross_coherence_mean",
    "frechet_distance",
    "generations",
    "joint_coherence",
    "joint_tally",
    "kl_between_experts",
    "latent_probe",
    "latents_of_experts",
    "load_classifier",
    "load_classifiers",
    "load_inception",
    "matched_accuracy",
    "mean_covariance",
    "mean_variance",
    "measure_coherence",
    "measure_joint_coherence",
    "measure_log_likelihoods",
    "measure_log_weights",
    "measure_posterior_means",
    "measure_responsibilities",
    "mse",
    "posteriors",
    "posteriors_of",
    "score_clusters",
    "ssim",
    "subsets",
    "train_classifier",
]
