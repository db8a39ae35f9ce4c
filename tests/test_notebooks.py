"""The tutorials: they run, and what is stored of them is what their cells show."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
#: Pictures by notebook.
NOTEBOOKS = {"first_steps": 6, "missing_modalities": 4, "style_and_content": 4}
PNG = "image/png"


def read(name: str) -> NotebookNode:
    return nbformat.read(ROOT / "docs" / "tutorials" / f"{name}.ipynb", as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: NotebookNode) -> set[str]:
    """What a cell printed and drew: names of streams, and of types of data."""
    printed = {x.name for x in cell.outputs if x.output_type == "stream"}
    return printed | {kind for x in cell.outputs for kind in x.get("data", ())}


def with_few_steps(notebook: NotebookNode) -> NotebookNode:
    """The cell tagged `parameters` says how long to train: what is shown is the same in kind."""
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    cell.source += "\nnum_steps = 12"
    return notebook


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_stored_outputs_are_clean(name):
    notebook = read(name)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert sum(PNG in shown(cell) for cell in cells) == NOTEBOOKS[name]
    assert not any("stderr" in shown(cell) for cell in cells)
    assert {x.output_type for cell in cells for x in cell.outputs} <= {"stream", "execute_result"}
    # Nothing that changes whenever it is run, or tells where that was.
    assert {cell.execution_count for cell in cells} == {None}
    assert {key for cell in notebook.cells for key in cell.metadata} <= {"tags"}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    file = ROOT / "docs" / "tutorials" / f"{name}.ipynb"
    text = file.read_text()
    assert not [place for place in ("/tmp/", "/home/", "/root/", "/Users/") if place in text]
    assert file.stat().st_size < 800_000


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_runs_and_shows_what_is_stored(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = with_few_steps(read(name))
    stored = [shown(cell) for cell in code_cells(notebook)]
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    assert [shown(cell) for cell in code_cells(notebook)] == stored
    assert not [*tmp_path.iterdir()]  # no files are left beside the notebook
