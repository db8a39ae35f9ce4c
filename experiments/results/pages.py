"""Blocks of the pages that are made from records.

A block stands between ``<!-- results: NAME -->`` and ``<!-- end of results -->``, on lines of their
own, or within a line for a phrase.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from experiments.results.tables import TABLES
from experiments.versions import ROOT

BLOCK = re.compile(r"<!-- results: ([\w.]+) -->(\n?)(.*?)<!-- end of results -->", re.DOTALL)


def paths() -> list[Path]:
    """Returns the pages that may have blocks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str) -> list[str]:
    """Returns the names of the blocks of a page."""
    return [match[1] for match in BLOCK.finditer(text)]


def filled(text: str) -> str:
    """Returns a page whose blocks have the tables of the records.

    Raises:
      ValueError: if a block has an unknown name, or is not closed.
    """
    if text.count("<!-- results:") != len(blocks(text)):
        raise ValueError("a block of results has no `<!-- end of results -->`")

    def fill(match: re.Match[str]) -> str:
        name, line_break, _ = match.groups()
        if name not in TABLES:
            raise ValueError(f"results is {name!r}: choose one of {sorted(TABLES)}")
        text = f"{line_break}{TABLES[name]()}{line_break}"
        return f"<!-- results: {name} -->{text}<!-- end of results -->"

    return BLOCK.sub(fill, text)


def write() -> Iterator[Path]:
    """Writes the tables of all pages, and yields those that changed."""
    for page in paths():
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            yield page
