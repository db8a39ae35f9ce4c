"""The README's Python block runs as printed."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parents[1] / "README.md"


def test_python_block_runs():
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["drawn"]["word"].shape == (16, 5, 8, 71)
    assert names["nll"].shape == (16,)
    assert np.isfinite(names["nll"]).all()
    assert np.isfinite(names["metrics"]["loss"])


def test_named_files_exist():
    """Files of the layout, and the figure."""
    text = README.read_text()
    listed = re.findall(r"^  ([\w/]+(?:\.py|/)) ", text, re.MULTILINE)
    assert len(listed) > 15
    for name in listed:
        assert (README.parent / "mmvae_jax" / name).exists(), name
    for figure in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (README.parent / figure).exists(), figure
