"""Seconds to the first step, in small."""

import pytest

from experiments.startup import StartupConfig, main


@pytest.mark.slow
def test_a_filled_cache_saves_the_compilation(tmp_path):
    rows = main(StartupConfig(cases=("two_mlp",), repeats=1, out=tmp_path))
    empty, filled = rows
    assert (empty["cache"], filled["cache"]) == ("empty", "filled")
    for row in rows:
        times = list(row["seconds"].values())
        assert times == sorted(times)
        assert row["peak_bytes"] > 1e8
    first_steps = [row["seconds"]["first step"] - row["seconds"]["model"] for row in rows]
    assert first_steps[1] < first_steps[0]  # imports take as long as the machine is busy
    assert main(StartupConfig(cases=("two_mlp",), repeats=1, out=tmp_path)) == rows


def test_unknown_cases_are_named():
    with pytest.raises(ValueError, match="cases is 'mnist'"):
        StartupConfig(cases=("mnist",))
