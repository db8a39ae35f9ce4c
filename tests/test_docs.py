"""The API reference: what is public explains itself, and the site is built."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mmvae_jax as mm
from mmvae_jax import plots

# Results and errors, which are explained where they come from, and a subpackage.
WITHOUT_EXAMPLE = {
    "Diagnostics",
    "Exported",
    "FitResult",
    "LostProcessError",
    "NonFiniteError",
    "Preempted",
    "TrainState",
    "interop",
}
MODULES = [
    f"mmvae_jax{name}" for name in ("", ".data", ".loggers", ".metrics", ".networks", ".plots")
]


@pytest.mark.parametrize("name", mm.__all__)
def test_public_names_have_docstrings_with_examples(name):
    """Which are run as doctests."""
    doc = inspect.getdoc(getattr(mm, name)) or ""
    assert doc[:1].isupper() or doc[:1] in "-`"
    assert (">>> " in doc) == (name not in WITHOUT_EXAMPLE)


@pytest.mark.parametrize("name", [name for name in plots.__all__ if name != "Examples"])
def test_figures_have_docstrings_with_examples(name):
    assert ">>> " in (inspect.getdoc(getattr(plots, name)) or "")


@pytest.mark.slow
def test_the_site_is_built(tmp_path):
    """By the README's command; of every public name there is an entry, with its source."""
    pytest.importorskip("pdoc")
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    command = ["-m", "pdoc", "-d", "google", "--math", "-o", "site", *MODULES]
    assert f"python {' '.join(command)}" in readme
    command[command.index("site")] = str(tmp_path)
    subprocess.run([sys.executable, *command], check=True)
    page = (tmp_path / "mmvae_jax.html").read_text()
    assert [name for name in mm.__all__ if f'id="{name}"' not in page] == ["interop"]
    assert (tmp_path / "mmvae_jax" / "metrics" / "coherence.html").exists()
