"""The noise of the estimators, in small."""

import numpy as np
import pytest

from experiments.estimator_noise import EstimatorNoiseConfig, main
from mmvae_jax.maths.estimators import ESTIMATORS


@pytest.mark.slow
def test_a_row_per_scale_and_a_figure(tmp_path, capsys):
    scales, file = (0.01, 1.0), tmp_path / "noise.png"
    noise = main(EstimatorNoiseConfig(scales=scales, batch=32, num_gradients=100, out=file))
    assert set(noise) == set(ESTIMATORS)
    assert all(values.shape == (2, 2) for values in noise.values())
    assert file.stat().st_size > 10_000
    assert "adaptive / quieter" in capsys.readouterr().out
    # The noise of the location's gradient falls with the scale for reparam, and rises for dreg.
    assert noise["reparam"][0, 0] < 0.1 * noise["reparam"][1, 0]
    assert noise["dreg"][0, 0] > 10 * noise["dreg"][1, 0]
    assert noise["adaptive_dreg"][0, 0] < 1.05 * noise["reparam"][0, 0]
    assert np.isfinite(np.stack(list(noise.values()))).all()


def test_wrong_settings():
    with pytest.raises(ValueError, match=r"scales is \(0.0,\)"):
        EstimatorNoiseConfig(scales=(0.0,))
    with pytest.raises(ValueError, match="num_gradients is 0"):
        EstimatorNoiseConfig(num_gradients=0)
