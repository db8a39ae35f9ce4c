"""Errors of reconstructed images: mean squared error and structural similarity, per example.

``mean_variance(values, mask)`` averages them over the examples that are observed.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Constants of Wang et al. (2004), section III.
WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03


@jax.jit
def mse(x: Float[Array, "n *dim"], y: Float[Array, "n *dim"]) -> Float[Array, " n"]:
    """Returns the mean squared difference over each example's entries, in squared units of x.

    >>> mse(jnp.zeros((2, 3)), jnp.array([[0.0, 0.0, 3.0], [1.0, 1.0, 1.0]])).tolist()
    [3.0, 1.0]
    """
    return jnp.square(x - y).mean(range(1, x.ndim))


@partial(jax.jit, static_argnames="data_range")
def ssim(
    x: Float[Array, "n h w c"], y: Float[Array, "n h w c"], *, data_range: float = 1.0
) -> Float[Array, " n"]:
    """Returns the structural similarity of each pair of images, from -1 to 1 (equal images).

    ``(2 m_x m_y + C1) (2 s_xy + C2) / ((m_x^2 + m_y^2 + C1) (s_x^2 + s_y^2 + C2))`` with means,
    variances and covariance under a Gaussian window (11 pixels, sigma 1.5) and
    ``C_i = (K_i data_range)^2`` (Wang, Bovik, Sheikh and Simoncelli 2004, eq. 13). It is averaged
    over channels and over all places of the window inside the image.

    Args:
      x: images.
      y: images to compare with x.
      data_range: difference of the largest and the smallest possible intensity.

    Raises:
      ValueError: if the images are smaller than the window.

    >>> x = jnp.linspace(0, 1, 144).reshape(1, 12, 12, 1)
    >>> ssim(x, x).round(3).tolist()
    [1.0]
    """
    if min(x.shape[1:3]) < WINDOW:
        raise ValueError(
            f"x has images of {x.shape[1]} x {x.shape[2]} pixels: give at least "
            f"{WINDOW} x {WINDOW}, the window, or use mse"
        )
    blur = partial(_blur, rows=_band(x.shape[1]), columns=_band(x.shape[2]))
    # Variances are differences of squares: centring first keeps the squares, and rounding, small.
    centre_x, centre_y = x.mean((1, 2), keepdims=True), y.mean((1, 2), keepdims=True)
    u, v = x - centre_x, y - centre_y
    mean_u, mean_v = blur(u), blur(v)
    variances = blur(u**2 + v**2) - mean_u**2 - mean_v**2
    covariance = blur(u * v) - mean_u * mean_v
    mean_x, mean_y = mean_u + centre_x, mean_v + centre_y
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return (luminance * structure).mean((1, 2, 3))


def _blur(
    images: Float[Array, "n h w c"],
    rows: Float[np.ndarray, "i h"],
    columns: Float[np.ndarray, "j w"],
) -> Float[Array, "n i j c"]:
    """Returns Gaussian means at all places of the window, by two matrix products."""
    return jnp.einsum("ih,nhwc,jw->nijc", rows, images, columns, precision="highest")


def _band(size: int) -> Float[np.ndarray, "places size"]:
    """Returns the normalised window at each of its places along an axis."""
    offset = np.arange(size) - np.arange(size - WINDOW + 1)[:, None] - WINDOW // 2
    weights = np.where(np.abs(offset) <= WINDOW // 2, np.exp(-0.5 * (offset / SIGMA) ** 2), 0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
