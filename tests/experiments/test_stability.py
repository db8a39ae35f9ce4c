"""The comparison of losses on narrow posteriors, in small."""

import json

import pytest

from experiments.stability import StabilityConfig, main


@pytest.mark.slow
def test_rows_are_kept_and_completed(tmp_path, capsys):
    losses = ("dreg_looser", "adaptive_dreg_looser")
    settings = {"data": ("tumours",), "seeds": (0,), "num_steps": 3, "out": tmp_path}
    main(StabilityConfig(losses=losses[:1], **settings))
    (first,) = main(StabilityConfig(losses=losses[:1], **settings))
    rows = main(StabilityConfig(losses=losses, **settings))
    assert rows[0] == first
    assert [row["loss"] for row in rows] == list(losses)
    assert rows == list(map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines()))
    assert all(0 < row["min_scale"] < 1 for row in rows)
    assert "tumours" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"losses": ("dregs",)}, r"losses has \['dregs'\]"), ({"data": ("x",)}, "data has 'x'")],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        StabilityConfig(**settings)
