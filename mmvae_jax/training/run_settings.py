"""The settings of a training run: ``config.json`` beside its checkpoints."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmvae_jax.config import MMVAEConfig
from mmvae_jax.saving.files import differences, read_json, write_text
from mmvae_jax.training.run_arguments import comparable

SETTINGS_FILE = "config.json"
#: Field of the settings that holds ``arguments_of_run``; version 0.1.0 had none.
ARGUMENTS = "fit"


def settings_of_run(
    config: MMVAEConfig,
    batch_size: int,
    seed: int,
    settings: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the settings that ``fit`` saves, and that a resumed run must give again."""
    run = {"batch_size": batch_size, "seed": seed, **(settings or {})}
    return {"model": config.describe(), "run": run, ARGUMENTS: dict(arguments or {})}


def read_settings(directory: Path) -> dict[str, Any]:
    """Reads the settings of the run whose checkpoints are in ``directory``.

    Raises:
      FileNotFoundError: if the directory holds none.
      ValueError: if the file cannot be read.
    """
    return read_json(directory / SETTINGS_FILE, source="the directory of a run's checkpoints")


def check_settings(directory: Path, settings: Mapping[str, Any]) -> None:
    """Checks that settings are the ones in ``directory``, if it holds any.

    Raises:
      ValueError: with the differences, if they are not the same.
    """
    if not (directory / SETTINGS_FILE).exists():
        return
    there = read_settings(directory)
    if isinstance(model := there.get("model"), Mapping):
        there = {**there, "model": with_new_fields(model, settings.get("model", {}))}
    if ARGUMENTS in settings:
        ours, theirs = comparable(there.pop(ARGUMENTS, {}), settings[ARGUMENTS])
        there, settings = {**there, ARGUMENTS: ours}, {**settings, ARGUMENTS: theirs}
    saved = {name: json.dumps(value) for name, value in _flat(there)}
    given = {name: json.dumps(value) for name, value in _flat(settings)}
    if lines := differences(saved, given):
        advice = _RATE if any("learning_rate" in line for line in lines) else ""
        raise ValueError(
            f"config differs from that of the checkpoints in {directory}:\n"
            + "\n".join(lines)
            + f"\nGive the same settings, or another directory.{advice}"
        )


_RATE = (
    " To change the rate of a run, set it in the state that fit returned: "
    "state.replace(opt_state=optax.tree.set(state.opt_state, learning_rate=...))."
)


def write_settings(directory: Path, settings: Mapping[str, Any]) -> None:
    """Writes the settings into a directory that has none."""
    file = directory / SETTINGS_FILE
    if not file.exists():
        directory.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(settings, indent=2) + "\n")


def with_new_fields(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a saved config with the defaults of those given fields that were added since."""
    defaults = {field.name: field.default for field in dataclasses.fields(MMVAEConfig)}
    added = defaults.keys() & given.keys() - saved.keys()
    return {**saved, **{name: defaults[name] for name in added}}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields names such as ``model.K``, and their values."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
