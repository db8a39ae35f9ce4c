"""SSIM against its definition, window by window, and against published values; MSE by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmvae_jax.metrics import mse, ssim


def make_images(seed=0, shape=(3, 16, 21, 2)):
    rng = np.random.default_rng(seed)
    x = rng.random(shape)
    return x.astype(np.float32), np.clip(x + 0.2 * rng.standard_normal(shape), 0, 1).astype("f4")


def ssim_by_definition(x, y, data_range):
    """Returns SSIM of one channel in double precision, every window by itself."""
    steps = np.arange(-5, 6)
    window = np.exp(-(steps[:, None] ** 2 + steps**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            u, v = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mu, mv = (window * u).sum(), (window * v).sum()
            var_u, var_v = (window * (u - mu) ** 2).sum(), (window * (v - mv) ** 2).sum()
            cov = (window * (u - mu) * (v - mv)).sum()
            values.append(
                (2 * mu * mv + c1) * (2 * cov + c2) / ((mu**2 + mv**2 + c1) * (var_u + var_v + c2))
            )
    return np.mean(values)


@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_ssim_follows_its_definition(data_range):
    x, y = (v * np.float32(data_range) for v in make_images())
    found = ssim(x, y, data_range=data_range)
    expected = [
        np.mean([ssim_by_definition(*pair, data_range) for pair in zip(a.T, b.T, strict=True)])
        for a, b in zip(x.astype(float), y.astype(float), strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)  # single precision


def test_ssim_is_symmetric_and_one_of_equals():
    x, y = make_images()
    np.testing.assert_allclose(ssim(x, y), ssim(y, x), atol=1e-6)
    np.testing.assert_allclose(ssim(x, x), 1, atol=1e-6)
    flat = jnp.full((1, 12, 12, 1), 0.5)
    np.testing.assert_allclose(ssim(flat, flat), 1, atol=1e-6)


def test_ssim_of_constant_images():
    """Without variance only the luminance term is left, (2 m n + C1) / (m^2 + n^2 + C1)."""
    x, y = jnp.full((1, 12, 12, 1), 0.2), jnp.full((1, 12, 12, 1), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    np.testing.assert_allclose(ssim(x, y), expected, rtol=1e-5)


def test_an_example_does_not_see_its_neighbours():
    x, y = make_images()
    alone = [ssim(x[i : i + 1], y[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(ssim(x, y), alone, rtol=1e-5)
    y[1] = np.nan
    assert np.isnan(np.asarray(ssim(x, y))).tolist() == [False, True, False]


def test_ssim_needs_a_window():
    with pytest.raises(ValueError, match="x has images of 10 x 12 pixels"):
        ssim(jnp.zeros((1, 10, 12, 1)), jnp.zeros((1, 10, 12, 1)))


@pytest.mark.parametrize("shape", [(4, 3), (4, 5, 6), (4, 2, 2, 3)])
def test_mse_of_examples_of_any_shape(shape):
    rng = np.random.default_rng(0)
    x, y = rng.random(shape, np.float32), rng.random(shape, np.float32)
    expected = np.square(x - y).reshape(4, -1).mean(1)
    np.testing.assert_allclose(mse(x, y), expected, rtol=1e-6)
