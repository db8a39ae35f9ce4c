"""Manifests: what files a folder was written with, so that damage to them is noticed."""

import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmvae_jax.saving.whole_files import write_whole

MANIFEST_FILE = "manifest.json"
#: Rewritten by orbax after the manifest, and of no use to a restore.
IGNORED = (MANIFEST_FILE, "_CHECKPOINT_METADATA")


def write_manifest(folder: Path) -> None:
    """Leave a manifest of all files in a folder and those below it."""
    files = {name: _describe(folder / name) for name in _files(folder)}
    write_whole(folder / MANIFEST_FILE, json.dumps(files, indent=1) + "\n")


def damage(folder: Path) -> str | None:
    """What is wrong with a folder that a manifest was written for; None if nothing is."""
    file = folder / MANIFEST_FILE
    if not file.is_file():
        return f"{MANIFEST_FILE} is missing"
    try:
        expected = json.loads(file.read_text())
    except ValueError as error:  # neither UTF-8 nor JSON
        return f"{MANIFEST_FILE} cannot be read: {error}"
    if not isinstance(expected, dict) or not expected:
        return f"{MANIFEST_FILE} names no files"
    for name, (size, digest) in expected.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, {size} were written"
        if _describe(path) != [size, digest]:
            return f"{name} is not what was written: its sha256 differs"
    return None


def damage_before_first_intact(directory: Path, steps: Sequence[int]) -> dict[int, str]:
    """What is wrong with the folders of steps, in order up to the first that is intact.

    With several processes the first one looks, and tells the others how many there are.
    """
    damaged = {}
    if jax.process_index() == 0:
        for step in steps:
            what = damage(directory / str(step))
            if what is None:
                break
            damaged[step] = what
    if jax.process_count() > 1:
        num = int(multihost_utils.broadcast_one_to_all(np.int32(len(damaged))))
        damaged = {step: damaged.get(step, "damaged") for step in steps[:num]}
    return damaged


def set_aside(folder: Path, place: Path) -> None:
    """Move a folder into ``place``, under its own name or, where that is taken, a numbered one."""
    place.mkdir(exist_ok=True)
    names = (f"{folder.name}-{number}" for number in itertools.count(2))
    name = next(n for n in itertools.chain([folder.name], names) if not (place / n).exists())
    folder.rename(place / name)


def _files(folder: Path) -> list[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if path.name not in IGNORED)


def _describe(path: Path) -> list[int | str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [path.stat().st_size, digest]
