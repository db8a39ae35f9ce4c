"""Files and folders that are complete or absent, and checks that they are as they were written."""

import contextlib
import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MANIFEST_FILE = "manifest.json"
#: Files that orbax rewrites after the manifest, and that a restore does not need.
IGNORED = (MANIFEST_FILE, "_CHECKPOINT_METADATA")


@contextlib.contextmanager
def whole_file(file: Path) -> Iterator[BinaryIO]:
    """Opens a file beside ``file``, and moves it there when the block has written all of it.

    A process that is killed in the block leaves ``file`` as it was.
    """
    partial = file.with_name(f"{file.name}.partial")
    try:
        with partial.open("wb") as opened:
            yield opened
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)  # still there only after an error


def write_text(file: Path, text: str) -> None:
    """Writes a text file, all of it or nothing."""
    with whole_file(file) as opened:
        opened.write(text.encode())


def write_npz(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays of any names, where ``np.savez`` cannot write one that is called ``file``."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, x in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, x, allow_pickle=False)


def check_new(folder: Path) -> None:
    """Checks that a folder is empty or does not exist.

    Raises:
      FileExistsError: if there is a file, or a folder that holds anything.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists, and nothing is overwritten: give a new folder")


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder beside ``folder``, and moves it there when the block ends.

    A folder that is already there is replaced. It stays as it is until all of the new one is
    written; a process that is killed between the two renames leaves it where ``present`` finds it.
    """
    partial, replaced = _beside(folder, "partial"), _beside(folder, "replaced")
    if present(folder) == replaced:
        replaced.rename(folder)
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)  # left by a process that was killed
            folder.rename(replaced)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # still there only after an error
    shutil.rmtree(replaced, ignore_errors=True)


def present(folder: Path) -> Path:
    """Returns ``folder``, or the place where a ``whole_folder`` that was killed has left it."""
    replaced = _beside(folder, "replaced")
    return replaced if replaced.is_dir() and not folder.exists() else folder


def read_json(file: Path, *, source: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
      file: path of the file.
      source: folder to give instead, as the error message names it when there is no such file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not a JSON object.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file.parent} holds no {file.name}: give {source}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # neither UTF-8 nor JSON
        raise ValueError(f"{file} cannot be read: {error}; put the file back") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}, expected an object")
    return content


def sha256(file: Path) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Writes the size and SHA-256 of every file below a folder into its ``manifest.json``."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name not in IGNORED)
    files = {path.relative_to(folder).as_posix(): _describe(path) for path in sorted(paths)}
    write_text(folder / MANIFEST_FILE, json.dumps(files, indent=1) + "\n")


def damage(folder: Path) -> str | None:
    """Returns the first difference between a folder and its manifest, None without any."""
    try:
        expected = read_json(folder / MANIFEST_FILE, source="a folder with a manifest")
    except FileNotFoundError:
        return f"{MANIFEST_FILE} is missing"
    except ValueError as error:
        return str(error)
    if not expected:
        return f"{MANIFEST_FILE} names no files"
    for name, (size, digest) in expected.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, {size} were written"
        if sha256(path) != digest:
            return f"{name} is not the file that was written: its sha256 differs"
    return None


def differences(saved: Mapping[str, str], given: Mapping[str, str]) -> list[str]:
    """Returns a line for every name that two mappings do not agree on."""
    return [
        f"  {name}: {saved.get(name, 'absent')} there, {given.get(name, 'absent')} now"
        for name in {**saved, **given}
        if saved.get(name) != given.get(name)
    ]


def _describe(path: Path) -> list[int | str]:
    return [path.stat().st_size, sha256(path)]


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f".{folder.name}.{suffix}")
