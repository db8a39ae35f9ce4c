"""Evaluation and checkpointing of a training run: the settings that ``fit`` takes as two values."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, no_type_check

from mmvae_jax.batch import AnyBatch
from mmvae_jax.checks import check_count


@no_type_check  # at run time: NumPy's scalars are taken, too
@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Evaluations during a training run.

    Args:
      data: examples to evaluate on.
      every: number of steps between evaluations; by default there is one, after the last step.
      batch_size: examples per call; by default the batch size of the run.
      best: metric that evaluations are compared by, ``eval/<name>``.
      maximise: True if larger values of it are better.
      patience: number of evaluations without a better one after which the run stops.

    Raises:
      ValueError: for counts below 1.

    >>> mm.Evaluation(data=arrays, every=100, patience=5).best
    'eval/loss'
    """

    data: AnyBatch
    every: int | None = None
    batch_size: int | None = None
    best: str = "eval/loss"
    maximise: bool = False
    patience: int | None = None

    def __post_init__(self) -> None:
        shown = {"every": "eval_every", "batch_size": "eval_batch_size", "patience": "patience"}
        for field, name in shown.items():
            if getattr(self, field) is not None:
                object.__setattr__(self, field, check_count(name, getattr(self, field)))


@no_type_check  # at run time: NumPy's scalars are taken, too
@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpointing:
    """Checkpoints of a training run.

    Args:
      directory: folder of this run only.
      every: number of steps between checkpoints. The last step, and the best so far, are saved too.
      keep: number of newest checkpoints to keep.
      resume: continue from the newest intact checkpoint, or start if there is none.
      settings: everything else that the run depends on, as JSON can hold it. A resumed run must
        give the same.

    Raises:
      ValueError: for counts below 1.

    >>> mm.Checkpointing(directory=folder / "run", every=500, resume=True).keep
    3
    """

    directory: str | os.PathLike
    every: int = 1000
    keep: int = 3
    resume: bool = False
    settings: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for field, name in {"every": "save_every", "keep": "keep"}.items():
            object.__setattr__(self, field, check_count(name, getattr(self, field)))


#: Keywords of ``fit`` before 0.2, and the fields that they became; data and directory come first.
EVALUATION_KEYWORDS = {
    "eval_data": "data",
    "eval_every": "every",
    "eval_batch_size": "batch_size",
    "best": "best",
    "maximise": "maximise",
    "patience": "patience",
}
CHECKPOINT_KEYWORDS = {
    "checkpoint_dir": "directory",
    "save_every": "every",
    "keep": "keep",
    "resume": "resume",
    "settings": "settings",
}


def grouped(
    evaluation: Evaluation | None, checkpointing: Checkpointing | None, old: Mapping[str, Any]
) -> tuple[Evaluation | None, Checkpointing | None]:
    """Returns both values, made from the keywords of ``fit`` before 0.2 where those are given.

    Raises:
      TypeError: for keywords that ``fit`` never had.
      ValueError: if a value is given in both ways, or without the data or directory that it needs.
    """
    unknown = [name for name in old if name not in EVALUATION_KEYWORDS | CHECKPOINT_KEYWORDS]
    if unknown:
        raise TypeError(f"fit() got an unexpected keyword argument {unknown[0]!r}")
    return (
        _from_keywords(Evaluation, "evaluation", evaluation, EVALUATION_KEYWORDS, old),
        _from_keywords(Checkpointing, "checkpointing", checkpointing, CHECKPOINT_KEYWORDS, old),
    )


def _from_keywords(
    kind: type, name: str, value: Any, fields: Mapping[str, str], old: Mapping[str, Any]
) -> Any:
    given = {keyword: old[keyword] for keyword in fields if keyword in old}
    if not given:
        return value
    if value is not None:
        keyword = next(iter(given))
        raise ValueError(
            f"{keyword} is {given[keyword]!r}, but {name} is given, too: set "
            f"{name}.{fields[keyword]}"
        )
    required = next(iter(fields))
    if given.get(required) is not None:
        return kind(**{fields[keyword]: x for keyword, x in given.items()})
    for keyword in ("eval_every", "patience", "resume"):
        if x := given.get(keyword):
            raise ValueError(f"{keyword} is {x!r}, but {required} is None: give {required}")
    return None
