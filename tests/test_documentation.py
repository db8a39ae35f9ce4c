"""README and docs: Python blocks run, commands exist, links lead somewhere, versions agree."""

import importlib
import importlib.metadata
import re
import shutil
import sys
import types
from pathlib import Path

import pytest

import mmvae_jax as mm
from mmvae_jax.cli.commands import COMMANDS
from mmvae_jax.cli.suggestions import option_names

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]
#: Pages whose programs take long to compile.
SLOW = (
    "composing",
    "data",
    "devices",
    "estimator",
    "likelihoods",
    "pretrained",
    "quickstart",
    "training",
    "weighting",
)


def blocks(page: Path, language: str) -> list[str]:
    """The page's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def lines(page: Path) -> list[str]:
    """Command lines of a page, without comments."""
    text = "".join(blocks(page, "bash") + blocks(page, "sh"))
    return [line.partition(" #")[0].strip() for line in text.splitlines()]


class Hub(types.ModuleType):
    """Stands in for huggingface_hub: a repository is a folder."""

    def __init__(self, root: Path):
        super().__init__("huggingface_hub")
        self.root = root

    def create_repo(self, repo_id: str, **options: object) -> str:
        return repo_id

    def upload_folder(self, *, repo_id: str, folder_path: str, **options: object) -> None:
        shutil.copytree(folder_path, self.root / repo_id)

    def snapshot_download(self, repo_id: str, **options: object) -> str:
        return str(self.root / repo_id)


def with_python() -> list:
    """Pages with Python blocks, the long ones marked slow."""
    return [
        pytest.param(page, id=name(page), marks=[pytest.mark.slow] if page.stem in SLOW else ())
        for page in PAGES
        if blocks(page, "python")
    ]


@pytest.mark.parametrize("page", with_python())
def test_python_blocks_run(page, tmp_path, monkeypatch):
    """In the page's order, in one namespace."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, name(page), "exec"), names)


@pytest.mark.parametrize("page", [page for page in PAGES if lines(page)], ids=name)
def test_commands_exist(page):
    """Modules that ``python -m`` runs, their flags, and commands and flags of ``mmvae``."""
    for line in lines(page):
        if found := re.search(r"python3? -m (experiments\S*)", line):
            config = config_of(found[1])
        elif found := re.match(r"mmvae (\w+)", line):
            config = COMMANDS[found[1]]
        else:
            continue
        flags = re.findall(r" --([\w-]+)", line[found.end() :])
        fields = {*option_names(config)}
        assert {flag.replace("-", "_") for flag in flags} <= fields, line


def config_of(program: str) -> type:
    """The settings of a program of ``experiments``, a module or a package."""
    module = importlib.import_module(program)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{program}.__main__")
    (config,) = (
        value
        for name, value in vars(module).items()
        if name.endswith("Config") and value.__module__.startswith(program)
    )
    return config


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files(page):
    """Sphinx checks the headings that links name."""
    text = re.sub(r"`[^`\n]*`", "", page.read_text())
    targets = re.findall(r"\]\(([^)\s]+)\)|^```\{figure\} (\S+)", text, re.MULTILINE)
    for target in filter(None, (a or b for a, b in targets)):
        if not target.startswith("http"):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_readme_is_short_and_has_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 160
    install = 'python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e ".[{}]" && '
    assert install.format("experiments") + ".venv/bin/python -m experiments.digits\n" in text
    assert install.format("test") + ".venv/bin/python -m pytest -n 2\n" in text


def test_versions_agree():
    """Package, installed metadata, changelog and citation."""
    assert importlib.metadata.version("mmvae_jax") == mm.__version__
    released = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == mm.__version__
    assert f"\nversion: {mm.__version__}\n" in (ROOT / "CITATION.cff").read_text()
