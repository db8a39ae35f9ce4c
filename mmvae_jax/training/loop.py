"""The training loop: steps, evaluations, checkpoints, and an end that loses nothing."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from tqdm import tqdm

from mmvae_jax.batch import AnyBatch
from mmvae_jax.maths.backward import Backward
from mmvae_jax.objective import AUTO
from mmvae_jax.overrides import Overrides
from mmvae_jax.training.evaluation import evaluate
from mmvae_jax.training.input_pipeline import feed
from mmvae_jax.training.monitor import Judge, Watch
from mmvae_jax.training.preemption import Preempted, SigtermFlag, lost_processes_named
from mmvae_jax.training.schedule import Schedule
from mmvae_jax.training.setup import (
    check_data,
    check_sizes,
    count_steps,
    open_checkpoints,
    restored,
    run_config,
    steps_between_evaluations,
)
from mmvae_jax.training.steps import TrainState, train_step, train_steps

Callback = Callable[[int, Mapping[str, float], TrainState], object]


class FitResult(NamedTuple):
    """How a training run ended.

    Attributes:
      state: after the last step.
      metrics: of the last evaluation, ``eval/<name>``; empty without one.
      best_step: the step of the best evaluation; None without one.
      stopped_early: whether evaluations had stopped improving.
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
    eval_data: AnyBatch | None = None,
    eval_every: int | None = None,
    eval_batch_size: int | None = None,
    best: str = "eval/loss",
    maximise: bool = False,
    patience: int | None = None,
    checkpoint_dir: str | Path | None = None,
    save_every: int = 1000,
    keep: int = 3,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    log_every: int = 50,
    progress: bool = True,
) -> FitResult:
    """Train up to a number of steps, in a way that can be interrupted anywhere.

    With a ``checkpoint_dir``, a run that is killed at any moment and called again with
    ``resume=True`` gives the same parameters, data order and logged metrics, bit for bit, as one
    that was left alone. SIGTERM saves and raises ``Preempted`` (exit code 75).

    Args:
      state: of ``create_train_state``, on a mesh or not; donated.
      train_data: examples, shuffled anew every epoch; or a grain pipeline of batches
        (``MultimodalArrays`` or ``Batch``), whose state is saved with the checkpoints.
      num_steps: steps of the whole run, those before a resume included.
      num_epochs: of examples, in place of ``num_steps``.
      batch_size: examples per step, of all processes together.
      seed: of the shuffling.
      backward: which particles the gradient is computed from.
      overrides: ``step -> Overrides``, numbers to use in place of the config's in the update that
        follows so many updates, such as a growing beta; evaluations are under the config.
      steps_per_call: in one device call (``jax.lax.scan``), for steps so short that calls cost.
      eval_data: examples to evaluate on.
      eval_every: steps between evaluations; by default at the end alone.
      eval_batch_size: examples per call of an evaluation; by default ``batch_size``.
      best: metric of evaluations whose best step is kept beside the newest.
      maximise: whether the largest value of it is the best.
      patience: evaluations without a better one after which to stop.
      checkpoint_dir: folder of this run alone; without one nothing is saved.
      save_every: steps between checkpoints. The last step, and the best so far, are saved too.
      keep: newest checkpoints to keep.
      resume: go on from the newest intact checkpoint, or start where there is none.
      settings: whatever else the run depends on, the same when it is resumed; JSON can hold it.
      callbacks: ``(step, metrics, state)``, called by the first process every ``log_every`` steps
        with the metrics of that step, and after evaluations with ``eval/<name>`` among them.
      log_every: steps between two looks at the metrics.
      progress: whether to show a progress bar, with speed and time left.

    Raises:
      ValueError: for settings that are wrong, or other than those of the checkpoints; or if
        ``checkpoint_dir`` holds checkpoints and ``resume`` is False. Before any compute.
      NonFiniteError: at the first step whose loss or gradient is NaN or infinite, unless the
        optimizer leaves such updates out (``make_optimizer(max_skips=...)``).
      LostProcessError: if another process of the run is gone.
      Preempted: after SIGTERM.

    >>> state = mm.create_train_state(model, tx, key=jax.random.key(0))
    >>> result = mm.fit(state, arrays, num_steps=4, batch_size=5, eval_data=arrays, progress=False)
    >>> result.best_step
    4
    """
    num_steps = count_steps(train_data, num_steps, num_epochs, batch_size)
    schedule = Schedule(
        num_steps=num_steps,
        steps_per_call=steps_per_call,
        log_every=log_every,
        eval_every=steps_between_evaluations(eval_data, eval_every, patience, num_steps),
        save_every=None if checkpoint_dir is None else save_every,
    )
    schedule.check()
    eval_batch_size = eval_batch_size or batch_size
    model_config = state.view().config
    check_data(model_config, train_data, eval_data)
    check_sizes(state.layout, model_config, batch_size, eval_batch_size)
    Judge(best, maximise).check(model_config)
    config = run_config(model_config, batch_size, seed, settings)
    checkpoints = open_checkpoints(checkpoint_dir, config, keep, best, maximise, resume=resume)
    state, judge, data_state, metrics = restored(state, checkpoints, Judge(best, maximise))
    step, saved = int(state.step), checkpoints.steps if checkpoints else ()
    if step > num_steps:
        raise ValueError(f"num_steps is {num_steps}, but the run is at step {step}: give more")
    watch = Watch(None if checkpoints is None else checkpoints.directory, saved)
    is_first = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        sigterm = stack.enter_context(SigtermFlag())
        stack.enter_context(lost_processes_named(checkpoint_dir))
        bar = stack.enter_context(
            tqdm(initial=step, total=num_steps, unit="step", disable=not (progress and is_first))
        )
        steps = stack.enter_context(
            feed(
                train_data,
                schedule,
                state.layout,
                batch_size=batch_size,
                seed=seed,
                step=step,
                data_state=data_state,
            )
        )

        def save() -> None:
            if checkpoints is not None:
                watch.look(state)  # what is saved is known to be finite
                is_own = not isinstance(train_data, AnyBatch)
                position = steps.get_state()["data"] if is_own else None
                extra = {"judge": judge._asdict(), "data": position}
                checkpoints.save(state, metrics, extra)
                watch.saved = step

        if not saved:
            save()  # a run that ends before its first checkpoint can go on, too
        while step < num_steps and not judge.is_tired(patience):
            size = schedule.call_size(step)
            call = train_step if size == 1 else train_steps
            given = overrides and _overrides_of_call(overrides, step, size)
            state, result = call(state, next(steps), overrides=given, backward=backward)
            step += size
            watch.add(step, size, result)
            bar.update(size)
            logged, metrics, is_better = {}, {}, False
            if schedule.is_due(step, log_every):
                logged = watch.look(state)
                bar.set_postfix(loss=f"{logged['loss']:.4g}", refresh=False)
            if eval_data is not None and schedule.is_due(step, schedule.eval_every):
                found = evaluate(state, eval_data, batch_size=eval_batch_size)
                metrics = {f"eval/{name}": value for name, value in found.items()}
                judge, is_better = judge.after(step, metrics)
            if is_first and (logged or metrics):
                for callback in callbacks:
                    callback(step, {**logged, **metrics}, state)
            is_asked_to_end = sigterm.is_set(step)
            is_last = is_asked_to_end or judge.is_tired(patience)
            if schedule.is_due(step, schedule.save_every) or is_better or is_last:
                save()
            if is_asked_to_end and step < num_steps:
                if checkpoints is not None:
                    checkpoints.wait()
                raise Preempted(step, checkpoints and checkpoints.directory)
    if checkpoints is not None:
        checkpoints.wait()
    return FitResult(state, metrics, judge.best_step, judge.is_tired(patience))


def _overrides_of_call(overrides: Callable[[int], Overrides], step: int, size: int) -> Overrides:
    """Those of a step, or of several with an axis in front."""
    of_steps = [overrides(step + number) for number in range(size)]
    return of_steps[0] if size == 1 else jax.tree.map(lambda *x: np.stack(x), *of_steps)
