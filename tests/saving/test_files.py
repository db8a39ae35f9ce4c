"""Files and folders are complete or absent, and damage to them is noticed."""

import shutil
from pathlib import Path

import pytest

from mmvae_jax.saving import files


class Killed(BaseException):
    """Ends the process, which then cleans nothing up."""


def write(folder: Path, content: str) -> None:
    with files.whole_folder(folder) as partial:
        (partial / "a").write_text(content)
        (partial / "b").write_text(content)


def contents(folder: Path) -> list[str]:
    return [file.read_text() for file in sorted(files.present(folder).iterdir())]


def kill_at(patch: pytest.MonkeyPatch, moment: int) -> None:
    """Ends the process before the `moment`-th change to the disk."""
    changes = 0

    def counting(function):
        def call(*args, **kwargs):
            nonlocal changes
            changes += 1
            if changes >= moment:
                raise Killed
            return function(*args, **kwargs)

        return call

    patch.setattr(files.shutil, "rmtree", counting(shutil.rmtree))
    for name in ("mkdir", "write_text", "rename"):
        patch.setattr(Path, name, counting(getattr(Path, name)))


def test_a_folder_whose_replacement_is_killed_is_one_of_the_two(tmp_path):
    folder, outcomes = tmp_path / "folder", []
    for moment in range(1, 11):
        write(folder, "old")
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, moment)
            try:
                write(folder, "new")
                killed = False
            except Killed:
                killed = True
        outcomes.append((killed, *contents(folder)))
    # Remove leftovers, make a folder, write two files, remove leftovers, rename the old folder,
    # rename the new one; and remove leftovers again, twice.
    olds, news = [(True, "old", "old")] * 7, [(True, "new", "new")] * 2
    assert outcomes == [*olds, *news, (False, "new", "new")]
    write(folder, "last")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_was_set_aside_is_put_back_before_a_write_that_fails(tmp_path):
    folder = tmp_path / "folder"
    write(folder, "old")
    folder.rename(tmp_path / ".folder.replaced")  # killed at that moment
    with pytest.raises(OSError, match="disk full"), files.whole_folder(folder):
        raise OSError("disk full")
    assert contents(folder) == ["old", "old"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_file_is_replaced_when_all_of_it_is_written(tmp_path):
    file = tmp_path / "file"
    files.write_text(file, "naïve\n")
    with files.whole_file(file) as opened:
        opened.write(b"half")
        assert file.read_bytes() == "naïve\n".encode()
    assert file.read_text() == "half"
    with pytest.raises(OSError, match="disk full"), files.whole_file(file) as opened:
        raise OSError("disk full")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "half"}


def test_new_folders(tmp_path):
    files.check_new(tmp_path / "absent")
    files.check_new(tmp_path)
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(FileExistsError, match=f"{path.name} exists"):
            files.check_new(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"format"', "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"[]", "holds a list"),
    ],
)
def test_json_that_is_no_object(tmp_path, content, message):
    file = tmp_path / "settings.json"
    with pytest.raises(FileNotFoundError, match=r"holds no settings.json: give a run"):
        files.read_json(file, source="a run")
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"settings.json {message}"):
        files.read_json(file, source="a run")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "b").write_text("longe"), "b has 5 bytes, 6 were written"),
        (lambda folder: (folder / "a").write_text("x"), "a is not the file that was written"),
        (lambda folder: (folder / "a").unlink(), "a is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "manifest.json names no"),
    ],
)
def test_damage(tmp_path, harm, message):
    for name, content in (("a", "a"), ("b", "longer")):
        (tmp_path / name).write_text(content)
    files.write_manifest(tmp_path)
    assert files.damage(tmp_path) is None
    harm(tmp_path)
    assert message in files.damage(tmp_path)
