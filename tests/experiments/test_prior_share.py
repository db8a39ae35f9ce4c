"""Estimates of a known p(X), with and without a share of the prior."""

import numpy as np
import pytest

from experiments.prior_share import PROBLEMS, PriorShareConfig, main, measure, slopes

CONFIG = PriorShareConfig(K=50, num_examples=4, num_keys=200)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_estimates_of_exact_experts_are_unbiased(share):
    ratios = measure(PROBLEMS["two exact experts, 2 axes"], share, CONFIG)
    error = ratios.std(0) / np.sqrt(len(ratios))
    assert ratios.shape == (200, 4)
    assert (np.abs(ratios.mean(0) - 1) < 4 * error).all()


def test_only_a_share_finds_the_mass_that_narrow_experts_miss():
    narrow = PROBLEMS["one expert ten times too narrow"]
    without, with_share = (measure(narrow, share, CONFIG).mean() for share in (0.0, 0.5))
    assert without < 0.3
    assert abs(with_share - 1) < 0.1


def test_one_modality_has_a_slope_of_one():
    assert [len(slopes(problem)) for problem in PROBLEMS.values()] == [2, 3, 3, 1]


@pytest.mark.slow
def test_rows_are_kept(tmp_path, capsys):
    config = PriorShareConfig(shares=(0.0,), K=10, num_examples=2, num_keys=2, out=tmp_path)
    rows = main(config)
    assert len(rows) == len(PROBLEMS)
    assert main(config) == rows
    assert "two exact experts, 2 axes" in capsys.readouterr().out


def test_wrong_shares_are_named():
    with pytest.raises(ValueError, match=r"shares is 1\.5"):
        PriorShareConfig(shares=(1.5,))
