"""The usual optimizer of an MMVAE, from parts of optax."""

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax
import optax
from jaxtyping import Array, Float

from mmvae_jax.checks import check_count, check_not_negative, check_positive


class Adam(optax.GradientTransformationExtraArgs):
    """The optimizer of ``make_optimizer``: an optax transformation that knows its settings.

    Attributes:
      settings: arguments of ``make_optimizer`` by name.
    """

    settings: Mapping[str, Any]


def make_optimizer(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    *,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    amsgrad: bool = False,
    max_skips: int | None = None,
) -> optax.GradientTransformation:
    """Returns Adam, optionally with clipped gradients, whose rate ``train_step`` reports.

    Equal arguments return the same object, with which a train step compiles only once: make
    schedules once, because two schedules are never equal. Any other optax optimizer may take its
    place. Its rate is reported if it is made by ``optax.inject_hyperparams``.

    Args:
      learning_rate: a number, or an optax schedule of the step.
      weight_decay: share of each parameter that a step of rate 1 removes, apart from the gradient
        (AdamW, Loshchilov and Hutter 2019).
      clip_norm: largest global norm of a gradient; longer gradients are scaled down to it.
      amsgrad: divide by the largest second moment so far (Reddi et al. 2018).
      max_skips: number of updates in a row that may be skipped because they are not finite. By
        default none is skipped, and ``fit`` stops.

    Raises:
      ValueError: for a rate or norm that is not positive, a negative decay, or fewer than one skip.

    >>> schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, warmup_steps=100, decay_steps=1000)
    >>> tx = mm.make_optimizer(schedule, clip_norm=100.0, max_skips=5)
    >>> state = mm.create_train_state(model, tx, key=jax.random.key(0))
    """
    if not callable(learning_rate):
        learning_rate = float(check_positive("learning_rate", learning_rate))
    weight_decay = float(check_not_negative("weight_decay", weight_decay))
    if clip_norm is not None:
        clip_norm = float(check_positive("clip_norm", clip_norm))
    if max_skips is not None:
        max_skips = check_count("max_skips", max_skips)
    return _adam(learning_rate, weight_decay, clip_norm, bool(amsgrad), max_skips)


@lru_cache
def _adam(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: float,
    clip_norm: float | None,
    amsgrad: bool,
    max_skips: int | None,
) -> Adam:
    settings = dict(locals())
    if weight_decay:
        tx = optax.inject_hyperparams(_with_decay, static_args="amsgrad")(
            learning_rate=learning_rate, weight_decay=weight_decay, amsgrad=amsgrad
        )
    else:
        adam = optax.inject_hyperparams(optax.amsgrad if amsgrad else optax.adam)
        tx = adam(learning_rate=learning_rate)
    if clip_norm is not None:
        tx = optax.chain(optax.clip_by_global_norm(clip_norm), tx)
    if max_skips is not None:
        tx = optax.apply_if_finite(tx, max_skips)
    made = Adam(*optax.with_extra_args_support(tx))
    made.settings = settings
    return made


def _with_decay(
    learning_rate: optax.ScalarOrSchedule, weight_decay: float | Array, amsgrad: bool
) -> optax.GradientTransformation:
    moments = optax.scale_by_amsgrad() if amsgrad else optax.scale_by_adam()
    decay = optax.add_decayed_weights(weight_decay)
    return optax.chain(moments, decay, optax.scale_by_learning_rate(learning_rate))


def hyperparams_of(opt_state: optax.OptState) -> dict[str, Array]:
    """Returns the numbers of ``optax.inject_hyperparams`` by path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): x
        for path, x in jax.tree.leaves_with_path(opt_state)
        if _is_hyperparam(path)
    }


def with_hyperparams(opt_state: optax.OptState, given: optax.OptState) -> optax.OptState:
    """Returns an optimizer's state with the hyperparameters of another one."""
    return jax.tree.map_with_path(
        lambda path, x, other: other if _is_hyperparam(path) else x, opt_state, given
    )


def _is_hyperparam(path: tuple[Any, ...]) -> bool:
    return any(getattr(entry, "name", None) == "hyperparams" for entry in path)


def taken_by(tx: optax.GradientTransformation, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those extra arguments that the update of an optimizer takes."""
    params = inspect.signature(tx.update).parameters
    if any(param.kind is param.VAR_KEYWORD for param in params.values()):
        return dict(extra)
    return {name: x for name, x in extra.items() if name in params}


def reported(opt_state: optax.OptState) -> dict[str, Float[Array, ""]]:
    """Returns ``learning_rate`` and ``skipped_updates`` so far, if the optimizer keeps them."""
    found = {}
    rates = [
        value
        for _, value in optax.tree.get_all_with_path(opt_state, "learning_rate")
        if isinstance(value, jax.Array)
    ]
    if len(rates) == 1:
        found["learning_rate"] = rates[0].astype(float)
    skips = optax.tree.get_all_with_path(opt_state, "total_notfinite")
    if len(skips) == 1:
        found["skipped_updates"] = skips[0][1].astype(float)
    return found
