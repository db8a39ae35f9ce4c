"""``mmvae info``: the content of a run's folder."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tyro.conf import FlagCreatePairsOff

from mmvae_jax.cli.arguments import RunFolder
from mmvae_jax.estimator.run_folder import is_run, open_run
from mmvae_jax.saving.files import damage
from mmvae_jax.tables.mixed_view import MIXED
from mmvae_jax.training.checkpoint import Checkpoints
from mmvae_jax.training.run_settings import read_settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Info:
    """Show a run's settings, its checkpoints with their metrics, and damage to their files.

    RUN may also be the checkpoint_dir of mmvae_jax.fit.
    """

    run_dir: RunFolder
    json: FlagCreatePairsOff[bool] = False
    """Print JSON instead of a table."""

    def run(self) -> None:
        """Prints the content of the folder; damage is no error."""
        is_table_run = is_run(self.run_dir)
        folder = open_run(self.run_dir).saved.directory if is_table_run else self.run_dir
        found = inspect_checkpoints(folder)
        print(json.dumps(found, indent=2) if self.json else "\n".join(_format_info(found)))


def inspect_checkpoints(folder: Path) -> dict[str, Any]:
    """Returns the settings and the steps of a folder of checkpoints."""
    settings = read_settings(folder)
    saved = Checkpoints(folder, config=settings, best="eval/loss")
    steps = {}
    for step in saved.steps:
        files = [path for path in (folder / str(step)).rglob("*") if path.is_file()]
        wrong = damage(folder / str(step))
        steps[step] = {
            "bytes": sum(path.stat().st_size for path in files),
            "damage": wrong,
            "metrics": saved.metrics(step) if wrong is None else {},
        }
    return {
        "checkpoints": str(folder),
        "settings": settings,
        "best_step": saved.best_step,
        "steps": steps,
    }


def _format_info(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line per modality, per setting and per step."""
    model, run = found["settings"]["model"], found["settings"]["run"]
    yield f"{found['checkpoints']}\n"
    for name, dim in model["input_dims"].items():
        view = run.get("views", {}).get(name)
        rows = "" if view is None else f"{view['dtype']}{view['shape']}"
        setting = model["decoders_dist"][name]
        likelihood = setting if isinstance(setting, str) else MIXED
        yield f"  {name:20} {dim!s:16} {likelihood:12} {rows}".rstrip()
    yield ""
    for name, value in {**model, **run}.items():
        if not isinstance(value, Mapping):
            yield f"  {name:28} {value}"
    yield f"\n  {'step':>8} {'MB':>8} {'eval/loss':>12}"
    for step, row in found["steps"].items():
        loss = row["metrics"].get("eval/loss")
        cell = "" if loss is None else f"{loss:.6g}"
        best = ", best" * (step == found["best_step"])
        state = "intact" if row["damage"] is None else f"damaged: {row['damage']}"
        yield f"  {step:8} {row['bytes'] / 1e6:8.2f} {cell:>12}  {state}{best}"
