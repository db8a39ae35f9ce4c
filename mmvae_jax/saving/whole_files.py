"""Files that are either as they were or as they should be, whenever the process is killed."""

from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Write a text file beside the path, and move it there when it is complete."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(file)
