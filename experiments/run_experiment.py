"""The course of an experiment: train, measure, draw, and write ``metrics.json``."""

import json
from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

import mmvae_jax as mm
from experiments import figures, report, runs
from experiments.command_line import run_command
from experiments.experiment import Experiment
from experiments.measurements import measure
from mmvae_jax import loggers
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data import missing_at_random
from mmvae_jax.metrics import load_classifiers, load_inception

#: Metrics of a run, as in its metrics.json.
Metrics = dict[str, Any]


def run_from_command_line(
    settings: type[Experiment] | Mapping[str, tuple[str, Experiment]],
) -> None:
    """Runs an experiment with settings from the command line.

    Args:
      settings: class of the settings; or presets, by name their description and settings.
    """
    config = settings if isinstance(settings, type) else next(iter(settings.values()))[1]
    run_command(_run_process, settings, f"experiments.{config.name}")


def _run_process(config: Experiment) -> None:
    with runs.process(config.coordinator, config.num_processes, config.process_id):
        main(config)


def main(config: Experiment) -> list[Metrics]:
    """Runs the experiment once for each of its seeds and prints a summary.

    Returns:
      The metrics of every run. A finished run is not computed again.

    Raises:
      ValueError: if a folder does not fit its run; raised before anything is computed or written.
      FileNotFoundError: if the data or another file of the config is missing.
    """
    check(config)
    return finish(config)


def check(config: Experiment) -> None:
    """Checks the folders of all runs and the files that the runs will need.

    Raises:
      ValueError: if a folder or a file does not fit.
      FileNotFoundError: if a file is missing.
    """
    if config.resume and not config.out.exists():
        raise ValueError(f"resume is True, but out is {config.out}, which does not exist")
    for run in config.runs():
        runs.check_run_folder(run.out, run.run_config(), resume=run.resume)
    if config.num_classes and config.classifiers is not None:
        load_classifiers(config.classifiers, config.model_config().input_dims)
    if config.inception is not None:
        load_inception(config.inception)


def finish(config: Experiment) -> list[Metrics]:
    """Computes all runs that are not finished, and returns the metrics of all runs."""
    found = [finish_run(run) for run in config.runs()]
    if jax.process_index() == 0 and len(found) > 1:
        print(report.table(found))
    return found


def finish_run(config: Experiment) -> Metrics:
    """Computes a run unless it is finished, and prints its metrics and files."""
    file = config.out / runs.METRICS_FILE
    if not file.exists():
        metrics = compute_run(config)
        if jax.process_index() > 0:
            return metrics
        runs.write_json(file, metrics)
    metrics = json.loads(file.read_text())
    print(figures.summary(metrics, num_classes=config.num_classes))
    for path in sorted(config.out.iterdir()):
        print(path)
    return metrics


def compute_run(config: Experiment) -> Metrics:
    """Trains a model, measures it and, in process 0, draws the figures."""
    seconds: dict[str, float] = {}
    init_key, train_key, eval_key, draw_key = jax.random.split(jax.random.key(config.seed), 4)
    with runs.timed(seconds, "data"):
        problem = config.load()
    with runs.timed(seconds, "train"):
        state = train(config, problem.train, init_key, train_key)
        model = state.model()
    with runs.timed(seconds, "evaluate"):
        results = measure(config, state, model, problem, eval_key)
    if jax.process_index() == 0:
        with runs.timed(seconds, "draw"):
            columns = loggers.read_jsonl(config.out / runs.HISTORY_FILE)
            drawn = figures.draw(model, problem, columns, results, draw_key)
            for name, figure in drawn.items():
                figure.savefig(config.out / f"{name}.png", dpi=150)
    return {
        "experiment": config.name,
        "preset": config.preset,
        "steps": int(state.step),
        **results,
        "config": config.settings(),
        **runs.provenance(),
        "seconds": {**seconds, "total": round(sum(seconds.values()), 2)},
    }


def train(
    config: Experiment, data: MultimodalArrays, init_key: PRNGKeyArray, train_key: PRNGKeyArray
) -> mm.TrainState:
    """Returns the state after training, with checkpoints and a log in the folder of the run."""
    data = missing_at_random(data, config.missing, seed=config.seed)
    num_steps = config.steps_on(data)
    return mm.fit(
        config.init_state(init_key, train_key, num_steps),
        data,
        batch_size=config.batch_size,
        num_steps=num_steps,
        seed=config.seed,
        backward=mm.Backward(config.backward),
        checkpointing=mm.Checkpointing(
            directory=config.out / runs.CHECKPOINTS,
            every=config.save_every,
            resume=config.resume,
            settings=config.settings(),
        ),
        callbacks=[loggers.jsonl(config.out / runs.HISTORY_FILE)],
        log_every=config.log_every,
    ).state
