"""Paths of local files and folders, as every public function takes them."""

import os
import re
from pathlib import Path
from typing import Any

#: Beginning of an address such as ``s3://bucket``; ``pathlib`` keeps one of its slashes.
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def as_path(path: Any, field: str = "path") -> Path:
    """Returns a local path, with ``~`` as the home directory.

    Args:
      path: text, bytes, or a ``pathlib.Path`` or other ``os.PathLike``.
      field: name of the argument, for the error.

    Raises:
      ValueError: for addresses such as ``s3://bucket/run``, empty texts and other types.
    """
    if not isinstance(path, str | bytes | os.PathLike) or not os.fspath(path):
        raise ValueError(f"{field} is {path!r}: give the path of a local file or folder")
    text = os.fsdecode(path)
    if ADDRESS.match(text):
        raise ValueError(
            f"{field} is {text!r}, an address: give a local path, and copy the files or mount the "
            "store as a folder"
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # no such user
        raise ValueError(f"{field} is {text!r}: give a path without '~'") from error
