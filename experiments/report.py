"""Table of the results of many runs.

    python -m experiments.report runs/mnist_svhn runs/stl --out results.md

Runs that differ only in their seed share a row, with means and sample standard deviations over the
seeds. Published results of a preset follow the rows of the preset.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro

from experiments.command_line import run_command
from experiments.published_values import PublishedValue, published_for

#: Content of a metrics.json.
Metrics = Mapping[str, Any]

#: Same name as in ``experiments.runs``, which imports JAX; a report starts faster without JAX.
METRICS_FILE = "metrics.json"
#: Types of the required fields of a metrics.json.
FIELDS = {"experiment": str, "preset": str, "config": dict, "device": str, "versions": dict}
FIX = "delete it and start its run again with --resume, which measures the model again"
#: Column titles by the path of a metric; a column without values is left out.
COLUMNS = {
    "test_bound": "bound, nats",
    "log_likelihood/joint/mean": "log p(X), nats",
    "log_likelihood/joint/unreliable": "unreliable log p(X)",
    "conditional_coherence": "conditional coherence",
    "joint_coherence": "joint coherence",
    "joint_coherence_gaussian_mixture": "joint coherence, Gaussian mixture",
    "joint_coherence_flow": "joint coherence, flow",
    "latent_probe": "latent probe",
    "prior_clusters/accuracy": "clusters of the prior, accuracy",
    "prior_clusters/ari": "adjusted Rand index",
    "classifier_accuracy": "classifiers on real examples",
    "correlation/image to caption": "correlation, image to caption",
    "correlation/caption to image": "correlation, caption to image",
    "correlation/joint": "correlation, joint",
    "correlation/real": "correlation, real pairs",
    "encoder_gradient/signal_to_noise": "encoder gradient, signal to noise",
    "encoder_gradient/cosine": "encoder gradient, cosine with the unbiased",
}
#: Metrics in nats, printed to one decimal; all others are printed to three.
NATS = ("test_bound", "log_likelihood/joint/mean")


class FinishedRun(NamedTuple):
    """A finished run.

    Attributes:
      file: path of the run's metrics.json.
      metrics: content of the file.
    """

    file: Path
    metrics: Metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Print the results of finished runs as one Markdown table."""

    dirs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DIR...")]
    """Folders of runs, or their parent folders."""
    out: Path | None = None
    """New file that the table is also written to; None only prints it."""


def main(config: ReportConfig) -> None:
    """Prints the table and writes it to ``out``.

    Raises:
      FileExistsError: if ``out`` exists.
      ValueError: if the runs cannot share a table, see ``load_runs``.
    """
    if config.out is not None and config.out.exists():
        raise FileExistsError(f"out is {config.out}, which exists already: choose a new file")
    text = table([run.metrics for run in load_runs(config.dirs)])
    print(text)
    if config.out is not None:
        with config.out.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text + "\n")


def load_runs(dirs: Sequence[Path]) -> list[FinishedRun]:
    """Returns every finished run at or below the folders, each one once.

    Raises:
      ValueError: if a folder holds no finished run, a file is damaged or lacks one of ``FIELDS``,
        or two runs have the same settings and seed. The message names the files.
    """
    if not dirs:
        raise ValueError("dirs is (): name folders of finished runs")
    files: dict[Path, Path] = {}
    for folder in dirs:
        found = sorted(folder.rglob(METRICS_FILE))
        if not found:
            raise ValueError(
                f"dirs has {folder}, which has no {METRICS_FILE} at or below it: name folders of "
                "finished runs"
            )
        files |= {file.resolve(): file for file in found}
    runs = [FinishedRun(file, _read(file)) for file in files.values()]
    _check_seeds(runs)
    return runs


def table(runs: Sequence[Metrics]) -> str:
    """Returns a Markdown table with a row per setting, and a note on devices and versions.

    Args:
      runs: metrics of the runs; runs with the same settings have different seeds.
    """
    groups = _same_setting(runs)
    presets = sorted(set(map(_preset_of, groups)))
    published = [p for name in presets for p in published_for(*name)]
    printed = {p.metric for p in published}
    columns = {
        path: title
        for path, title in columns_for(published).items()
        if path in printed or any(metric(run, path) is not None for run in runs)
    }
    lines = [_line("experiment", "seeds", *columns.values()), _line(*["---"] * (len(columns) + 2))]
    for name in presets:
        configs = [group[0]["config"] for group in groups if group[0]["experiment"] == name[0]]
        settings = differing(configs)
        lines += [row(group, columns, settings) for group in groups if _preset_of(group) == name]
        lines += published_rows(published_for(*name), columns)
    return "\n".join([*lines, "", _provenance(runs)])


def columns_for(published: Iterable[PublishedValue]) -> dict[str, str]:
    """Returns column titles by path: ``COLUMNS``, then further metrics with published values."""
    extra = {p.metric: _title(p.metric) for p in published if p.metric not in COLUMNS}
    return COLUMNS | extra


def row(
    runs: Sequence[Metrics],
    columns: Mapping[str, str] = COLUMNS,
    settings: Sequence[str] = (),
) -> str:
    """Returns the table row of runs that differ only in their seed.

    Args:
      runs: metrics of one or more runs.
      columns: column titles by the path of a metric.
      settings: names of the settings to show in the first cell.
    """
    config = runs[0]["config"]
    shown = [f"`{name}={config[name]}`" for name in settings if name in config]
    label = ", ".join([" ".join(_preset_of(runs)), *shown])
    cells = [_cell([metric(run, path) for run in runs], _decimals(path)) for path in columns]
    return _line(label, str(len(runs)), *cells)


def published_rows(published: Iterable[PublishedValue], columns: Mapping[str, str]) -> list[str]:
    """Returns a table row per source, with values as printed in the source."""
    sources: dict[str, dict[str, float]] = {}
    for p in published:
        sources.setdefault(p.source, {})[p.metric] = p.value
    return [
        _line(f"published: {source}", "", *(str(values.get(path, "")) for path in columns))
        for source, values in sources.items()
    ]


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the names of the settings that are not the same in all configs, except the seed.

    >>> differing([{"K": 1, "beta": 1.0, "seed": 0}, {"K": 5, "beta": 1.0, "seed": 1}])
    ['K']
    """
    names = dict.fromkeys(name for config in configs for name in config if name != "seed")
    values = {name: {json.dumps(c[name]) if name in c else "" for c in configs} for name in names}
    return [name for name, found in values.items() if len(found) > 1]


def metric(run: Metrics, path: str) -> float | None:
    """Returns the metric at a path: a mapping's mean; None if nothing is there.

    >>> metric({"classifier_accuracy": {"mnist": 1.0, "svhn": 0.5}}, "classifier_accuracy")
    0.75
    """
    found: Any = run
    for name in path.split("/"):
        found = found.get(name) if isinstance(found, Mapping) else None
    if isinstance(found, Mapping):
        return float(np.mean([*found.values()])) if found else None
    return found


def _read(file: Path) -> dict[str, Any]:
    """Returns the content of a metrics.json after checking its required fields."""
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): {FIX}") from error
    if not isinstance(metrics, dict):
        raise ValueError(f"{file} is damaged (it holds no object): {FIX}")
    for name, kind in FIELDS.items():
        if not isinstance(metrics.get(name), kind):
            raise ValueError(
                f"{file} has {name} {metrics.get(name)!r}, not a {kind.__name__}: {FIX}"
            )
    seed = metrics["config"].get("seed")
    if not isinstance(seed, int):
        raise ValueError(f"{file} has seed {seed!r} in its config, not an int: {FIX}")
    return metrics


def _check_seeds(runs: Iterable[FinishedRun]) -> None:
    """Raises ValueError if two runs have the same settings and seed."""
    seen: dict[tuple[str, ...], Path] = {}
    for file, metrics in runs:
        seed = metrics["config"]["seed"]
        other = seen.setdefault((*_setting(metrics), str(seed)), file)
        if other is not file:
            raise ValueError(
                f"{other} and {file} have the same settings and the same seed, {seed}: "
                "name the folder of only one of them"
            )


def _setting(run: Metrics) -> tuple[str, str, str]:
    """Returns the key of a table row: all runs with the same key share the row."""
    config = {name: value for name, value in run["config"].items() if name != "seed"}
    return run["experiment"], run["preset"], json.dumps(config, sort_keys=True)


def _same_setting(runs: Iterable[Metrics]) -> list[list[Metrics]]:
    """Groups runs by setting, in the order in which settings first occur."""
    groups: dict[tuple[str, ...], list[Metrics]] = {}
    for run in runs:
        groups.setdefault(_setting(run), []).append(run)
    return [*groups.values()]


def _preset_of(group: Sequence[Metrics]) -> tuple[str, str]:
    return group[0]["experiment"], group[0]["preset"]


def _title(path: str) -> str:
    """Returns a title like "latent probe, mnist" for a metric of one or two modalities."""
    name, *modalities = path.split("/")
    name = name.removesuffix("_pairs").removesuffix("_modalities").replace("_", " ")
    return f"{name}, {' to '.join(modalities)}"


def _decimals(path: str) -> int:
    return 1 if path in NATS else 3


def _cell(values: Sequence[float | None], decimals: int) -> str:
    """Formats mean and sample standard deviation, with counts if some seeds have no value.

    >>> _cell([0.5, 0.7], 3), _cell([0.5, None], 3), _cell([None, None], 3)
    ('0.600 +- 0.141', '0.500 (1 of 2)', '')
    """
    known = [value for value in values if value is not None]
    if not known:
        return ""
    text = f"{np.mean(known):.{decimals}f}"
    if len(known) > 1:
        with np.errstate(invalid="ignore"):  # an infinite value has no spread: NaN
            text += f" +- {np.std(known, ddof=1):.{decimals}f}"
    return text if len(known) == len(values) else f"{text} ({len(known)} of {len(values)})"


def _line(*cells: str) -> str:
    escaped = [cell.replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def _provenance(runs: Iterable[Metrics]) -> str:
    """Returns a note with all devices and all versions of each package."""
    devices = {run["device"]: None for run in runs}
    versions: dict[str, dict[str, None]] = {}
    for run in runs:
        for package, version in run["versions"].items():
            versions.setdefault(package, {})[version] = None
    packages = "; ".join(f"{package} {', '.join(seen)}" for package, seen in versions.items())
    meaning = "Mean +- sample standard deviation over seeds."
    return f"{meaning} Computed on {', '.join(devices)} with {packages}."


if __name__ == "__main__":
    run_command(main, ReportConfig, "experiments.report")
