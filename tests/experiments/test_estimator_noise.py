"""The noise of the estimators, in small."""

import numpy as np
import pytest

from experiments.estimator_noise import EstimatorNoiseConfig, main
from mmvae_jax.maths.estimators import ESTIMATORS


@pytest.mark.slow
def test_a_row_per_scale_and_a_figure(tmp_path, capsys):
    config = EstimatorNoiseConfig(scales=(0.01, 1.0), batch=32, num_gradients=100, out=tmp_path)
    noise = main(config)
    assert set(noise) == set(ESTIMATORS)
    assert all(values.shape == (2, 2) for values in noise.values())
    assert (tmp_path / "estimator_noise.png").stat().st_size > 10_000
    file = tmp_path / "rows.jsonl"
    assert len(file.read_text().splitlines()) == 2 * len(ESTIMATORS)
    assert all((main(config)[name] == values).all() for name, values in noise.items())
    assert len(file.read_text().splitlines()) == 2 * len(ESTIMATORS)  # nothing computed again
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
