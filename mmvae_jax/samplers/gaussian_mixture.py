"""Gaussian mixtures of latents, fitted by expectation maximisation."""

from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mmvae_jax.batch import AnyBatch
from mmvae_jax.checks import check_count
from mmvae_jax.inputs.keys import as_key
from mmvae_jax.model import MMVAE
from mmvae_jax.samplers.aggregate import aggregate_posterior, draw_aggregate, every_example
from mmvae_jax.samplers.latent_sampler import LatentSampler, sampler_of


class GaussianMixture(NamedTuple):
    """The density ``sum_c pi_c N(u; loc_c, L_c L_c^T)``.

    Attributes:
      logits: logits of the weights pi.
      loc: mean of each component.
      scale_tril: lower Cholesky factor L of each covariance.
    """

    logits: Float[Array, " c"]
    loc: Float[Array, "c d"]
    scale_tril: Float[Array, "c d d"]

    def distribution(self) -> distrax.Distribution:
        """Returns the mixture, with log densities and draws."""
        return distrax.MixtureSameFamily(
            distrax.Categorical(self.logits),
            distrax.MultivariateNormalTri(self.loc, self.scale_tril),
        )


def fit_gaussian_mixture(
    model: MMVAE,
    data: AnyBatch,
    key: PRNGKeyArray,
    *,
    num_components: int = 10,
    num_draws: int = 1,
    max_iter: int = 200,
) -> LatentSampler:
    """Fits a Gaussian mixture with full covariances to the aggregate posterior of data.

    Expectation maximisation, scikit-learn's ``GaussianMixture``, runs on draws of
    ``q(u) = 1/n sum_b q(u|X_b)``: each draw takes one of its example's observed experts.

    Args:
      model: a trained MMVAE.
      data: examples, complete or incomplete. Examples that miss everything do not count.
      key: randomness of the draws and of the first means.
      num_components: number of components.
      num_draws: number of draws per example.
      max_iter: largest number of iterations; scikit-learn warns if these are too few.

    Returns:
      The sampler, whose ``shared`` is the ``GaussianMixture``.

    Raises:
      ValueError: if there are fewer draws than components, or the data do not fit the model.
      ImportError: if scikit-learn is missing.

    >>> sampler = mm.fit_gaussian_mixture(model, batch, jax.random.key(0), num_components=2)
    >>> mm.decode(model, sampler.sample(jax.random.key(1), 7))["sound"].shape
    (7, 4)
    """
    try:
        from sklearn.mixture import GaussianMixture as Mixture
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError(
            "fit_gaussian_mixture needs scikit-learn: pip install 'mmvae_jax[experiments]'"
        ) from error
    num_components = check_count("num_components", num_components)
    num_draws, max_iter = check_count("num_draws", num_draws), check_count("max_iter", max_iter)
    draw_key, seed_key = jax.random.split(as_key(key))
    posterior = aggregate_posterior(model, data)
    num_all = num_draws * posterior.num_examples
    if num_all < max(num_components, 2):
        raise ValueError(
            f"num_components is {num_components}, but there are {num_all} draws of latents: give "
            "fewer components, or a larger num_draws"
        )
    index = every_example(posterior, num_draws)
    u = np.asarray(draw_aggregate(posterior, model.config.family, index, draw_key), np.float64)
    seed = int(jax.random.randint(seed_key, (), 0, np.iinfo(np.int32).max))
    mixture = Mixture(num_components, max_iter=max_iter, random_state=seed)
    with threadpool_limits(1):  # threads synchronise at every iteration
        mixture.fit(u)
    weights, means, covariances = map(
        np.asarray, (mixture.weights_, mixture.means_, mixture.covariances_)
    )
    fitted = np.log(weights), means, np.linalg.cholesky(covariances)
    return sampler_of(model, GaussianMixture(*(jnp.asarray(a, float) for a in fitted)))
