"""Distributions of latents that are fitted to a trained model's aggregate posterior.

Latents of real data rarely follow the prior. Draws from a distribution that is fitted to them
decode into better examples than draws from the prior, without any change of the model.
"""

from mmvae_jax.samplers.flow import Flow, fit_flow
from mmvae_jax.samplers.gaussian_mixture import GaussianMixture, fit_gaussian_mixture
from mmvae_jax.samplers.latent_sampler import LatentSampler

__all__ = ["Flow", "GaussianMixture", "LatentSampler", "fit_flow", "fit_gaussian_mixture"]
