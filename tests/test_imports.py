"""Imports go one way, the maths needs JAX and distrax only, and names do not collide."""

import ast
import graphlib
import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import mmvae_jax as mm

PACKAGE = Path(mm.__file__).parent


def module_name(file):
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


FILES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def imports(module):
    """Returns the names of all modules that a module of the package imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & FILES.keys() or {node.module}
    return found


def room(module):
    """Returns the folder of a module, or the module itself at the package's root."""
    return ".".join(module.split(".")[:2])


GRAPH = {module: imports(module) & FILES.keys() for module in FILES}


def test_no_file_imports_itself_through_others():
    assert len(GRAPH) > 50
    assert "mmvae_jax.maths.gradients" in GRAPH["mmvae_jax.objective"]
    graphlib.TopologicalSorter(GRAPH).prepare()


def test_no_room_imports_itself_through_others():
    rooms = {room(module): set() for module in GRAPH}
    for module, imported in GRAPH.items():
        rooms[room(module)] |= {room(other) for other in imported} - {room(module)}
    graphlib.TopologicalSorter(rooms).prepare()


MATHS = [module for module in FILES if module.startswith("mmvae_jax.maths.")]


@pytest.mark.parametrize("module", MATHS)
def test_maths_imports_jax_and_distrax_only(module):
    outside = {name.split(".")[0] for name in imports(module)} - sys.stdlib_module_names
    assert outside <= {"mmvae_jax", "jax", "jaxtyping", "distrax"}
    assert {room(other) for other in GRAPH[module]} <= {"mmvae_jax.maths", "mmvae_jax.checks"}
    assert not GRAPH["mmvae_jax.checks"]


# Loads modules of the package without running the package's __init__, which loads all of it.
LOAD = """
import importlib, sys, types
package = types.ModuleType("mmvae_jax")
package.__path__ = [sys.argv[1]]
sys.modules["mmvae_jax"] = package
for module in sys.argv[2:]:
    importlib.import_module(module)
print(*sys.modules)
"""


def test_maths_runs_without_flax():
    command = [sys.executable, "-c", LOAD, str(PACKAGE), *MATHS]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert {*MATHS} <= {*loaded}
    assert not {"flax", "optax", "orbax", "grain"} & {*loaded}


def test_export_is_a_function_and_no_module():
    assert callable(mm.export)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("mmvae_jax.export")


def test_the_version_is_that_of_the_metadata():
    assert mm.__version__ == importlib.metadata.version("mmvae_jax")
