"""Rows of a folder: those of one choice of settings, which a second call adds to."""

import dataclasses
import json
from pathlib import Path

import pytest

from experiments.rows import Rows


@dataclasses.dataclass(frozen=True)
class Config:
    seeds: tuple[int, ...] = (0,)
    num_steps: int | None = 3
    run: Path | None = None
    data_dir: Path | None = None
    out: Path = Path("out")


def test_rows_are_kept_for_a_second_call(tmp_path):
    first = Rows(tmp_path / "new", Config())
    first.add({"seed": 0, "loss": 1.5})
    moved = Config(seeds=(0, 1), data_dir=tmp_path, out=tmp_path)
    second = Rows(tmp_path / "new", moved)
    assert second.all == [{"seed": 0, "loss": 1.5}]
    assert second.has({"seed": 0})
    assert not second.has({"seed": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 4}, "num_steps is 4, but 3 for the rows"),
        ({"num_steps": None}, "num_steps is None, but 3 for the rows"),
        ({"run": Path("/other")}, "run is /other, but None for the rows"),
    ],
)
def test_rows_of_other_settings_are_refused_and_kept(tmp_path, change, message):
    Rows(tmp_path, Config()).add({"seed": 0})
    before = {file.name: file.read_text() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=message):
        Rows(tmp_path, dataclasses.replace(Config(), **change))
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == before


def test_settings_without_rows_are_replaced(tmp_path):
    Rows(tmp_path, Config())
    Rows(tmp_path, Config(num_steps=9)).add({"seed": 0})
    assert json.loads((tmp_path / "settings.json").read_text()) == {"num_steps": 9, "run": None}


def test_rows_whose_settings_are_unknown_are_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"seed": 0}\n')
    with pytest.raises(ValueError, match="num_steps is 3, but not recorded"):
        Rows(tmp_path, Config())
    with pytest.raises(ValueError, match="num_steps is None, but not recorded"):
        Rows(tmp_path, Config(num_steps=None))
