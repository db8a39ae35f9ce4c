"""Figures of a multi-modal model: arrays in, a matplotlib ``Figure`` out, no global state.

Examples of a modality are images ``[n, height, width, channel]`` (grey or RGB, values in 0 to 1) or
a sequence of ``n`` strings.
"""

from mmvae_jax.plots.curves import training_curve
from mmvae_jax.plots.experts import divergence_bars, responsibilities, weight_histogram
from mmvae_jax.plots.grids import (
    cross_generation_grid,
    latent_interpolation,
    prior_samples,
    style_transfer_grid,
)
from mmvae_jax.plots.latents import interpolate, latent_map, project_2d
from mmvae_jax.plots.tiles import Examples

__all__ = [
    "Examples",
    "cross_generation_grid",
    "divergence_bars",
    "interpolate",
    "latent_interpolation",
    "latent_map",
    "prior_samples",
    "project_2d",
    "responsibilities",
    "style_transfer_grid",
    "training_curve",
    "weight_histogram",
]
