"""Seconds to the first step, in small."""

import pytest

from experiments import startup
from experiments.startup import StartupConfig, main


@pytest.mark.slow
def test_a_filled_cache_saves_the_compilation(tmp_path, monkeypatch):
    """The second process starts with the first one's programs and adds none."""
    start_process, programs = startup.start_process, []

    def names(cache):
        return {path.name for path in cache.rglob("*-cache")}

    def watched(case, cache):
        before = names(cache)
        row = start_process(case, cache)
        programs.append((before, names(cache)))
        return row

    monkeypatch.setattr(startup, "start_process", watched)
    rows = main(StartupConfig(cases=("two_mlp",), repeats=1, out=tmp_path))
    empty, filled = rows
    assert (empty["cache"], filled["cache"]) == ("empty", "filled")
    for row in rows:
        times = list(row["seconds"].values())
        assert times == sorted(times)
        assert row["peak_bytes"] > 1e8
    (before, compiled), second = programs
    assert before == set()
    assert any("train_step" in name for name in compiled)
    assert second == (compiled, compiled)
    assert main(StartupConfig(cases=("two_mlp",), repeats=1, out=tmp_path)) == rows
    assert len(programs) == 2


def test_unknown_cases_are_named():
    with pytest.raises(ValueError, match="cases is 'mnist'"):
        StartupConfig(cases=("mnist",))
