"""Tables of trained models: bounds, coherences and probes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.published_values import published_for
from experiments.report import metric
from experiments.results.markdown import mean_and_spread, table
from experiments.results.records import Record, Row

#: Titles and decimals of the metrics of ``models``.
MODEL_METRICS = {
    "conditional_coherence": ("conditional coherence", 3),
    "given_all_others": ("given all others", 3),
    "joint_coherence": ("joint coherence: prior", 3),
    "joint_coherence_effective_classes": ("its effective classes", 1),
    "joint_coherence_gaussian_mixture": ("Gaussian mixture", 3),
    "joint_coherence_flow": ("flow", 3),
    "latent_probe": ("probe of u", 3),
    "prior_clusters/accuracy": ("clusters", 3),
}
#: Titles and decimals of the metrics of ``pictures``.
PICTURE_METRICS = {
    "prior": ("Frechet distance: prior", 0),
    "given": ("given one picture", 0),
    "log_likelihood/joint/unreliable": ("unreliable estimates of log p(X)", 2),
}


def digits(record: Record) -> str:
    """Returns a row per command of the digits experiment, and chance."""
    header = (
        f"`{record.commands[0]}`",
        "bound, nats",
        "conditional coherence",
        "joint coherence",
        "latent probe",
    )
    shares = ("conditional_coherence", "joint_coherence", "latent_probe")
    rows = []
    for row in (row for row in record.rows if row["config"]["weighting"] == "mixture"):
        flags = row["command"].removeprefix(record.commands[0]).strip()
        cells = (f"{row[name]:.3f}" for name in shares)
        rows.append((f"`{flags}`" if flags else "(defaults)", f"{row['test_bound']:.0f}", *cells))
    return table(header, [*rows, ("chance", "", "0.100", "0.010", "0.100")])


def run_seconds(record: Record) -> str:
    """Returns the wall-clock seconds of the first run, from start to end."""
    return f"{record.rows[0]['seconds']['total']:.0f} s"


def weightings(record: Record) -> str:
    """Returns the conditional coherence by the number of given modalities and weighting."""
    complete = [row for row in record.rows if row["config"]["missing"] == 0]
    runs = {row["config"]["weighting"]: row["conditional_coherence_by_size"] for row in complete}
    sizes = next(iter(runs.values()))
    rows = [(size, *(f"{by_size[size]:.3f}" for by_size in runs.values())) for size in sizes]
    return table(("given", *(f"`{name}`" for name in runs)), rows)


def scenes(record: Record) -> str:
    """Returns coherences and probes of MNIST and scenes, below those published for SVHN."""
    classifiers, run = record.rows
    published: dict[str, dict[str, Any]] = {}
    for value in published_for("mnist_svhn", "paper"):
        published.setdefault(value.source, {})[value.metric] = value.value
    rows = [
        (f"MNIST-SVHN: {source}", *(_share(values.get(path)) for path in _of_pair("svhn")))
        for source, values in published.items()
    ]
    title = f"MNIST and scenes: `{run['preset']}`, {run['steps']:,} steps"
    rows.append((title, *(_share(metric(run, path)) for path in _of_pair("scene"))))
    real = (_share(classifiers["accuracy"][name]) for name in ("scene", "mnist"))
    header = ("", "generated from MNIST", "MNIST from the other", "joint coherence")
    probes = ("probe of MNIST", "probe of the other")
    return table((*header, *probes), [*rows, ("classifiers, real examples", *real, *["", "", ""])])


def _of_pair(other: str) -> tuple[str, ...]:
    """Returns the paths of the metrics of MNIST and another modality."""
    return (
        f"conditional_coherence_pairs/mnist/{other}",
        f"conditional_coherence_pairs/{other}/mnist",
        "joint_coherence",
        "latent_probe_modalities/mnist",
        f"latent_probe_modalities/{other}",
    )


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def models(record: Record) -> str:
    """Returns coherences and probes of every model, mean and spread over seeds."""
    columns, runs = _by_model(record)
    flat = {name: [_with_all_others(run) for run in own] for name, own in runs.items()}
    measured = {path for own in flat.values() for run in own for path in run}
    metrics = {path: titled for path, titled in MODEL_METRICS.items() if path in measured}
    header = (*columns, *(title for title, _ in metrics.values()))
    return table(header, [(*name, *_means(own, metrics)) for name, own in flat.items()])


def _with_all_others(run: Row) -> Row:
    """Returns a run with the coherence of a modality given all others."""
    by_size = run["conditional_coherence_by_size"]
    return {**run, "given_all_others": by_size[max(by_size, key=int)]}


def pictures(record: Record) -> str:
    """Returns Frechet distances, and the share of joint likelihoods that are unreliable."""
    columns, runs = _by_model(record)
    header = (*columns, *(title for title, _ in PICTURE_METRICS.values()))
    rows = []
    for name, own in runs.items():
        flat = [{**run, **_frechet(run["frechet_classifier"])} for run in own]
        rows.append((*name, *_means(flat, PICTURE_METRICS)))
    return table(header, rows)


def _frechet(distances: Mapping[str, Mapping[str, float]]) -> Row:
    """Returns mean distances of samples of the prior, and of what one modality generates."""
    others = [
        distance
        for given, row in distances.items()
        for name, distance in row.items()
        if given not in ("prior", name)
    ]
    return {"prior": np.mean([*distances["prior"].values()]), "given": np.mean(others)}


def _by_model(record: Record) -> tuple[tuple[str, ...], dict[tuple[str, ...], list[Row]]]:
    """Returns the columns that name a model, and the runs of every model by their cells.

    The family of the posteriors has a column if the runs have several.
    """
    runs = [row for row in record.rows if "config" in row]  # not the classifiers
    has_families = len({run["config"]["posterior"] for run in runs}) > 1
    columns = ("model", "posterior", "u, w") if has_families else ("model", "u, w")
    found: dict[tuple[str, ...], list[Row]] = {}
    for run in runs:
        config = run["config"]
        family = (f"`{config['posterior']}`",) if has_families else ()
        sizes = f"{config['latent_dim']}, {config['modalities_specific_dim']}"
        found.setdefault((_model_name(config), *family, sizes), []).append(run)
    return columns, found


def _means(runs: Sequence[Row], metrics: Mapping[str, tuple[str, int]]) -> Iterator[str]:
    """Yields mean and spread of each metric over the runs that have it."""
    for path, (_, decimals) in metrics.items():
        yield mean_and_spread([run[path] for run in runs if path in run], decimals)


def _model_name(config: Mapping[str, Any]) -> str:
    if config["aggregation"] != "moe":
        return {"poe": "MVAE", "mopoe": "MoPoE"}[config["aggregation"]]
    if config["number_of_clusters"] > 1:
        return "CMVAE"
    return "MMVAE+" if config["modalities_specific_dim"] else "MMVAE"
