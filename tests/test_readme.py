"""The README's Python block runs as printed."""

import re
from pathlib import Path

import jax
import numpy as np

import mmvae_jax as mm

README = Path(__file__).parents[1] / "README.md"


BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def run(block, names):
    exec(compile(block, "README.md", "exec"), names)
    return names


def test_use_runs():
    names = run(BLOCKS[0], {})
    assert names["drawn"]["word"].shape == (16, 5, 8, 71)
    assert names["nll"].shape == (16,)
    assert np.isfinite(names["nll"]).all()
    assert np.isfinite(names["metrics"]["loss"])


def test_training_runs_and_several_devices_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(BLOCKS[1], {})
    assert names["result"].best_step in (10, 20)
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 2
    arrays = names["data"]
    names["batch"] = mm.Batch(data={name: x[:32] for name, x in arrays.data.items()})
    names["key"] = jax.random.key(1)
    run(BLOCKS[2], names)
    assert np.isfinite(names["metrics"]["loss"])
    assert np.isfinite(run(BLOCKS[3], {})["loss"])
    assert len(BLOCKS) == 4


def test_named_files_exist():
    """Files of the layout, and the figures."""
    text = README.read_text()
    layout = text[text.index("## Layout") : text.index("## Not there yet")]
    listed = re.findall(r"\b\w+\.py\b|^  \w+/", layout, re.MULTILINE)
    assert len(listed) > 15
    for name in listed:
        assert (README.parent / "mmvae_jax" / name.strip()).exists(), name
    for figure in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (README.parent / figure).exists(), figure
