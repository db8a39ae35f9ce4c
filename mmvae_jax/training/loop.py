"""The training loop: steps, evaluations, checkpoints, and an end that loses nothing."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from tqdm import tqdm

from mmvae_jax.batch import AnyBatch, Batch
from mmvae_jax.checks import check_at_least, check_count, plain
from mmvae_jax.data.prefetch import Prefetch
from mmvae_jax.maths.backward import Backward
from mmvae_jax.objective import AUTO
from mmvae_jax.overrides import Overrides
from mmvae_jax.training.checkpoint import Checkpoints
from mmvae_jax.training.evaluation import evaluate
from mmvae_jax.training.fit_options import Checkpointing, Evaluation, grouped
from mmvae_jax.training.input_pipeline import device_batches
from mmvae_jax.training.monitor import Monitor
from mmvae_jax.training.preemption import StopFlag, lost_processes_named
from mmvae_jax.training.run_arguments import arguments_of_run
from mmvae_jax.training.run_settings import settings_of_run
from mmvae_jax.training.schedule import Schedule
from mmvae_jax.training.setup import (
    Start,
    check_data,
    check_sizes,
    count_steps,
    default_evaluation,
    open_checkpoints,
    restored,
)
from mmvae_jax.training.steps import train_step, train_steps
from mmvae_jax.training.train_state import TrainState, config_of

Callback = Callable[[int, Mapping[str, float], TrainState], object]


class FitResult(NamedTuple):
    """The end of a training run.

    Attributes:
      state: train state after the last step.
      metrics: metrics of the last evaluation, ``eval/<name>``; empty without one.
      best_step: step of the best evaluation; None without one.
      stopped_early: True if evaluations had stopped improving.
    """

    state: TrainState
    metrics: dict[str, float]
    best_step: int | None
    stopped_early: bool


def fit(
    state: TrainState,
    train_data: AnyBatch | grain.IterDataset,
    *,
    num_steps: int | None = None,
    num_epochs: int | None = None,
    batch_size: int = 128,
    seed: int = 0,
    backward: Backward = AUTO,
    overrides: Callable[[int], Overrides] | None = None,
    steps_per_call: int = 1,
    evaluation: Evaluation | None = None,
    checkpointing: Checkpointing | None = None,
    callbacks: Sequence[Callback] = (),
    log_every: int = 50,
    progress: bool = True,
    **old: Any,
) -> FitResult:
    """Trains up to a number of steps, in a way that can be interrupted anywhere.

    With ``checkpointing``, a run that is killed at any moment and called again with
    ``resume=True`` gives the same parameters, data order and logged metrics, bit for bit, as an
    undisturbed one. SIGTERM saves and raises ``Preempted`` (exit code 75); the first Ctrl-C saves
    and raises ``KeyboardInterrupt``, a second one ends the run at once.

    Args:
      state: train state from ``create_train_state``, on a mesh or not; donated.
      train_data: examples, shuffled anew every epoch; or a grain pipeline of batches
        (``MultimodalArrays`` or ``Batch``), whose state is saved with the checkpoints.
      num_steps: number of steps of the whole run, those before a resume included.
      num_epochs: number of passes over the examples, in place of ``num_steps``.
      batch_size: examples per step, of all processes together.
      seed: seed of the shuffling.
      backward: choice of the particles that the gradient is computed from.
      overrides: ``step -> Overrides``, numbers to use in place of the config's in the update after
        ``step`` updates, such as a growing beta. Evaluations use the config's.
      steps_per_call: number of steps in one device call (``jax.lax.scan``), for steps so short
        that calls cost.
      evaluation: data and settings of evaluations; without it there are none.
      checkpointing: folder and settings of checkpoints; without it nothing is saved.
      callbacks: functions ``(step, metrics, state)``, called by the first process every
        ``log_every`` steps with the metrics of that step, and after evaluations with
        ``eval/<name>`` among them.
      log_every: number of steps between logs.
      progress: show a progress bar, with speed and time left.
      **old: keywords of version 0.1, which keep working for this release: ``eval_data``,
        ``eval_every``, ``eval_batch_size``, ``best``, ``maximise``, ``patience``
        (now ``Evaluation``); ``checkpoint_dir``, ``save_every``, ``keep``, ``resume``,
        ``settings`` (now ``Checkpointing``).

    Raises:
      ValueError: for settings that are wrong, or other than those of the checkpoints; or if the
        directory holds checkpoints and ``resume`` is False. Before any compute.
      NonFiniteError: at the first step whose loss or gradient is NaN or infinite, unless the
        optimizer skips such updates (``make_optimizer(max_skips=...)``); or at an evaluation whose
        ``best`` metric is.
      LostProcessError: if another process of the run has ended.
      Preempted: after SIGTERM.
      KeyboardInterrupt: after Ctrl-C.

    Warns:
      DivergenceWarning: once if the loss has got much worse than it was, and once if posteriors
        are so narrow that the noise of the loss's gradient estimator rules.

    >>> state = mm.create_train_state(model, tx, key=jax.random.key(0))
    >>> result = mm.fit(state, arrays, num_steps=4, batch_size=5, progress=False,
    ...                 evaluation=mm.Evaluation(data=arrays))
    >>> result.best_step
    4
    """
    evaluation, checkpointing = grouped(evaluation, checkpointing, old)
    num_steps, num_epochs = plain(num_steps), plain(num_epochs)
    batch_size, seed = check_count("batch_size", batch_size), check_at_least("seed", seed, 0)
    num_steps = count_steps(train_data, num_steps, num_epochs, batch_size)
    schedule = Schedule(
        num_steps=num_steps,
        steps_per_call=steps_per_call,
        log_every=log_every,
        eval_every=evaluation and (evaluation.every or num_steps),
        save_every=checkpointing and checkpointing.every,
    ).checked()
    best, eval_batch_size = default_evaluation(evaluation, batch_size)
    config = config_of(state)
    check_data(config, train_data, evaluation and evaluation.data)
    check_sizes(state.layout, config, batch_size, eval_batch_size)
    best.check(config)
    checkpoints = None
    if checkpointing is not None:
        datasets = train_data, evaluation and evaluation.data
        arguments = arguments_of_run(state, *datasets, backward, has_overrides=bool(overrides))
        settings = settings_of_run(config, batch_size, seed, checkpointing.settings, arguments)
        checkpoints = open_checkpoints(checkpointing, settings, best)
    start = restored(state, checkpoints, best, num_steps)
    data_follow_seed = isinstance(train_data, AnyBatch)
    run = _Run(start, config.loss, checkpoints, evaluation, eval_batch_size, data_follow_seed)
    is_shown = progress and jax.process_index() == 0
    bar = tqdm(initial=run.step, total=num_steps, unit="step", disable=not is_shown)
    ahead = device_batches(
        train_data,
        schedule,
        run.state.layout,
        config,
        batch_size=batch_size,
        seed=seed,
        step=run.step,
        data_state=start.data_state,
    )
    try:
        with lost_processes_named(run.directory), StopFlag() as stop, bar, ahead as batches:
            _train(run, batches, schedule, stop, bar, callbacks, overrides, backward)
    finally:
        if checkpoints is not None:
            checkpoints.wait()  # an error must not name a checkpoint that is still being written
    return FitResult(run.state, dict(run.metrics), run.best.best_step, run.has_run_out)


@dataclasses.dataclass
class _Run:
    """The changing part of a training run."""

    start: dataclasses.InitVar[Start]
    loss: dataclasses.InitVar[str]
    checkpoints: Checkpoints | None
    evaluation: Evaluation | None
    eval_batch_size: int
    data_follow_seed: bool

    def __post_init__(self, start: Start, loss: str) -> None:
        self.state, self.best, self.metrics = start.state, start.best, start.metrics
        self.step = int(start.state.step)
        saved = self.checkpoints.steps if self.checkpoints else ()
        self.monitor = Monitor(self.directory, saved, loss)
        self.is_new = not saved

    @property
    def directory(self) -> Path | None:
        """Directory of the checkpoints, if there are any."""
        return None if self.checkpoints is None else self.checkpoints.directory

    @property
    def has_run_out(self) -> bool:
        """True if evaluations have stopped improving."""
        return self.evaluation is not None and self.best.has_run_out(self.evaluation.patience)

    def advance(
        self,
        batch: Batch,
        size: int,
        overrides: Callable[[int], Overrides] | None,
        backward: Backward,
    ) -> None:
        """Makes the ``size`` steps of one call."""
        call = train_step if size == 1 else train_steps
        given = overrides and _overrides_of_call(overrides, self.step, size)
        self.state, metrics = call(self.state, batch, overrides=given, backward=backward)
        self.step += size
        self.monitor.add(self.step, size, metrics)
        self.metrics = {}

    def evaluate(self) -> bool:
        """Evaluates the state, and returns True if it is the best so far."""
        assert self.evaluation is not None, "only then is an evaluation due"
        found = evaluate(self.state, self.evaluation.data, batch_size=self.eval_batch_size)
        self.metrics = {f"eval/{name}": value for name, value in found.items()}
        self.monitor.check_evaluation(self.step, self.best.metric, self.metrics, self.state)
        self.best, is_better = self.best.after(self.step, self.metrics)
        return is_better

    def save(self, batches: Prefetch[Batch]) -> None:
        """Saves a checkpoint, after a check that all metrics up to here are finite."""
        if self.checkpoints is None:
            return
        self.monitor.check(self.state)
        # Batches made from examples are a function of seed and step; a pipeline has a state.
        data_state = None if self.data_follow_seed else batches.get_state()["data"]
        extra = {"judge": self.best._asdict(), "data": data_state}
        self.checkpoints.save(self.state, self.metrics, extra)
        self.monitor.saved = self.step


def _train(
    run: _Run,
    batches: Prefetch[Batch],
    schedule: Schedule,
    stop: StopFlag,
    bar: Any,
    callbacks: Sequence[Callback],
    overrides: Callable[[int], Overrides] | None,
    backward: Backward,
) -> None:
    """Trains to the end of the run, or until it is stopped."""
    if run.is_new:
        run.save(batches)  # a run that ends before its first checkpoint can be resumed, too
    while run.step < schedule.num_steps and not run.has_run_out:
        size = schedule.call_size(run.step)
        run.advance(next(batches), size, overrides, backward)
        bar.update(size)
        due, logged = schedule.due(run.step), {}
        if due.log:
            logged = run.monitor.check(run.state)
            bar.set_postfix(loss=f"{logged['loss']:.4g}", refresh=False)
        is_better = due.evaluate and run.evaluate()
        if jax.process_index() == 0 and (logged or run.metrics):
            for callback in callbacks:
                callback(run.step, {**logged, **run.metrics}, run.state)
        is_stopped = stop.is_set(run.step)
        if due.save or is_better or is_stopped or run.has_run_out:
            run.save(batches)
        if is_stopped and run.step < schedule.num_steps:
            raise stop.end_of_run(run.step, run.directory)


def _overrides_of_call(overrides: Callable[[int], Overrides], step: int, size: int) -> Overrides:
    """Returns the overrides of one step, or of several with an axis in front."""
    of_steps = [overrides(step + number) for number in range(size)]
    return of_steps[0] if size == 1 else jax.tree.map(lambda *x: np.stack(x), *of_steps)
