"""Conducts an experiment: its command line, and runs from the data to metrics.json and figures."""

import json
import sys
from collections.abc import Mapping
from typing import Any

import jax
import tyro

import mmvae_jax as mm
from experiments import figures, report, runs
from experiments.experiment import Experiment
from experiments.measures import measure
from mmvae_jax import loggers
from mmvae_jax.data.incomplete import missing_at_random
from mmvae_jax.metrics.classifier import load_classifiers
from mmvae_jax.metrics.inception import load_inception


def command_line(presets: Mapping[str, tuple[str, Experiment]] | type[Experiment]) -> None:
    """``main`` of the command line's settings; what is wrong with them is said without a trace.

    Args:
      presets: a description and settings by name, which then are subcommands; or the class of
        the settings alone.
    """
    if isinstance(presets, type):
        config = tyro.cli(presets)
    else:
        config = tyro.extras.overridable_config_cli(dict(presets))
    runs.keep_compiled()
    runs.connect(config.coordinator, config.num_processes, config.process_id)
    try:
        check(config)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    try:
        finish(config)
    except FileNotFoundError as error:  # data, before anything is computed
        sys.exit(f"error: {error}")
    except mm.Preempted as end:
        print(end, file=sys.stderr)
        raise
    except mm.LostProcessError as error:
        runs.leave(error)


def main(config: Experiment) -> list[dict[str, Any]]:
    """Run the experiment with each of its seeds, print a summary and return what is measured.

    Returns:
      What ``metrics.json`` of every run holds.

    Raises:
      ValueError: if a folder is not fit for its run, before anything is computed or written.
      FileNotFoundError: if the data, or files named by the config, are not there.
    """
    check(config)
    return finish(config)


def check(config: Experiment) -> None:
    """Look for what is wrong with the folders of all runs, and the files that they are to use.

    Raises:
      ValueError: if one of them is not fit; nothing is written.
      FileNotFoundError: if a file is not there.
    """
    if config.resume and not config.out.exists():
        raise ValueError(f"resume is True, but out is {config.out}, which does not exist")
    for run in config.runs():
        runs.check_folder(run.out, run.run_config(), resume=run.resume)
    check_files(config)


def check_files(config: Experiment) -> None:
    """Reads the networks that a config names: what is wrong with them shows before training.

    Raises:
      ValueError: if classifiers or Inception's weights are not fit.
      FileNotFoundError: if there is no file of Inception's weights.
    """
    if config.num_classes and config.classifiers is not None:
        load_classifiers(config.classifiers, config.model_config().input_dims)
    if config.inception is not None:
        load_inception(config.inception)


def finish(config: Experiment) -> list[dict[str, Any]]:
    """Do what is left of all runs; a finished one stays as it is."""
    found = [complete(run) for run in config.runs()]
    if jax.process_index() == 0 and len(found) > 1:
        print(report.table(found))
    return found


def complete(config: Experiment) -> dict[str, Any]:
    """Do what is left of one run."""
    file = config.out / runs.METRICS_FILE
    if not file.exists():
        metrics = run(config)
        if jax.process_index() > 0:
            return metrics
        runs.write_json(file, metrics)
    metrics = json.loads(file.read_text())
    print(figures.summary(metrics, num_classes=config.num_classes))
    for path in sorted(config.out.iterdir()):
        print(path)
    return metrics


def run(config: Experiment) -> dict[str, Any]:
    """Train, measure and draw; with several processes the first one draws."""
    seconds: dict[str, float] = {}
    init_key, train_key, eval_key, draw_key = jax.random.split(jax.random.key(config.seed), 4)
    history = config.out / runs.HISTORY_FILE
    with runs.timed(seconds, "data"):
        problem = config.load()
        train = missing_at_random(problem.train, config.missing, seed=config.seed)
        num_steps = config.steps_on(train)
    with runs.timed(seconds, "train"):
        trained = mm.fit(
            config.init_state(init_key, train_key, num_steps),
            train,
            batch_size=config.batch_size,
            num_steps=num_steps,
            seed=config.seed,
            backward=mm.Backward(config.backward),
            checkpoint_dir=config.out / runs.CHECKPOINTS,
            save_every=config.save_every,
            resume=config.resume,
            settings=config.settings(),
            callbacks=[loggers.jsonl(history)],
            log_every=config.log_every,
        )
        state, model = trained.state, trained.state.model()
    with runs.timed(seconds, "evaluate"):
        results = measure(config, state, model, problem, eval_key)
    if jax.process_index() == 0:
        with runs.timed(seconds, "draw"):
            columns = loggers.read_jsonl(history)
            drawn = figures.draw(model, problem, columns, results["divergence"], draw_key)
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
