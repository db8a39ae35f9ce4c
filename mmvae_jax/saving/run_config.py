"""config.json: the settings of a run, beside its checkpoints."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmvae_jax.saving.whole_files import write_whole

CONFIG_FILE = "config.json"


def read_config(
    directory: Path,
    name: str = CONFIG_FILE,
    *,
    source: str = "the directory of a run's checkpoints",
) -> dict[str, Any]:
    """The settings in a directory.

    Args:
      directory: where they are.
      name: of the file that holds them.
      source: what to give in its place if it holds none.

    Raises:
      FileNotFoundError: if there are none.
      ValueError: if they cannot be read.
    """
    file = directory / name
    if not file.is_file():
        raise FileNotFoundError(f"{directory} holds no {name}: give {source}")
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # neither UTF-8 nor JSON
        raise ValueError(f"{file} cannot be read: {error}; put the file back") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{file} holds a {type(settings).__name__}, expected an object")
    return settings


def check_config(directory: Path, config: Mapping[str, Any]) -> None:
    """Compare settings with those in a directory, if there are any.

    Raises:
      ValueError: with the differences, if they are not the same.
    """
    if not (directory / CONFIG_FILE).exists():
        return
    saved = {name: json.dumps(value) for name, value in _flat(read_config(directory))}
    given = {name: json.dumps(value) for name, value in _flat(config)}
    if lines := differences(saved, given):
        raise ValueError(
            f"config differs from that of the checkpoints in {directory}:\n"
            + "\n".join(lines)
            + "\nGive the same settings, or another directory."
        )


def write_config(directory: Path, config: Mapping[str, Any]) -> None:
    """Leave the settings in a directory that has none."""
    file = directory / CONFIG_FILE
    if file.exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(config, indent=2) + "\n")


def differences(saved: Mapping[str, str], given: Mapping[str, str]) -> list[str]:
    """A line for every name that two mappings do not agree on."""
    return [
        f"  {name}: {saved.get(name, 'absent')} there, {given.get(name, 'absent')} now"
        for name in {**saved, **given}
        if saved.get(name) != given.get(name)
    ]


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names such as ``model.K``, and their values."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
