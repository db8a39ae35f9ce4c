"""The API reference: public names explain themselves, and its pages list them."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import mmvae_jax as mm
from mmvae_jax import plots

API = Path(__file__).parents[1] / "docs" / "api"
#: Results and errors, which the functions that return or raise them explain, and rooms.
WITHOUT_EXAMPLE = {
    "AnnealedDiagnostics",
    "Diagnostics",
    "Exported",
    "FitResult",
    "LostProcessError",
    "DivergenceWarning",
    "NllBounds",
    "NonFiniteError",
    "Preempted",
    "TrainState",
    "data",
    "interop",
    "networks",
}
#: Rooms with public names of their own.
ROOMS = ("data", "interop", "metrics", "networks", "plots", "tables")


@pytest.mark.parametrize("name", mm.__all__)
def test_public_names_have_docstrings_with_examples(name):
    """Doctests run the examples."""
    doc = inspect.getdoc(getattr(mm, name)) or ""
    assert doc[:1].isupper() or doc[:1] in "-`"
    assert (">>> " in doc) == (name not in WITHOUT_EXAMPLE)


@pytest.mark.parametrize("name", [name for name in plots.__all__ if name != "Examples"])
def test_figures_have_docstrings_with_examples(name):
    assert ">>> " in (inspect.getdoc(getattr(plots, name)) or "")


def test_a_page_for_every_name_of_the_package():
    assert sorted(names_on("mmvae_jax")) == sorted({*mm.__all__} - {*ROOMS})


@pytest.mark.parametrize("room", ROOMS)
def test_a_page_for_every_name_of_a_room(room):
    module = importlib.import_module(f"mmvae_jax.{room}")
    missing = {*getattr(module, "__all__", ())} - names_on(room)
    assert not missing


def names_on(page: str) -> set[str]:
    """The names that an API page documents, by themselves or with all of their module."""
    text = (API / f"{page}.md").read_text()
    names = set(re.findall(r"^\.\. auto(?:class|data|exception|function):: (\S+)", text, re.M))
    for module in re.findall(r"^\.\. automodule:: (\S+)", text, re.M):
        names |= {name for name in vars(importlib.import_module(module)) if name[0] != "_"}
    return names
