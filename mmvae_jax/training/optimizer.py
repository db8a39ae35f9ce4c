"""The usual optimizer of an MMVAE, from parts of optax."""

import jax
import optax
from jaxtyping import Array, Float

from mmvae_jax.checks import check_positive


def make_optimizer(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    *,
    clip_norm: float | None = None,
    amsgrad: bool = False,
    max_skips: int | None = None,
) -> optax.GradientTransformation:
    """Returns Adam, optionally with clipped gradients, whose rate ``train_step`` reports.

    Any other optax optimizer may take its place. Its rate is reported if it is made by
    ``optax.inject_hyperparams``.

    Args:
      learning_rate: a number, or an optax schedule of the step.
      clip_norm: largest global norm of a gradient; longer gradients are scaled down to it.
      amsgrad: divide by the largest second moment so far (Reddi et al. 2018).
      max_skips: number of updates in a row that may be skipped because they are not finite. By
        default none is skipped, and ``fit`` stops.

    Raises:
      ValueError: for a rate or norm that is not positive, or fewer than one skip.

    >>> schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, warmup_steps=100, decay_steps=1000)
    >>> tx = mm.make_optimizer(schedule, clip_norm=100.0, max_skips=5)
    >>> state = mm.create_train_state(model, tx, key=jax.random.key(0))
    """
    if not callable(learning_rate):
        check_positive("learning_rate", float(learning_rate))
    adam = optax.inject_hyperparams(optax.amsgrad if amsgrad else optax.adam)
    tx = adam(learning_rate=learning_rate)
    if clip_norm is not None:
        check_positive("clip_norm", clip_norm)
        tx = optax.chain(optax.clip_by_global_norm(clip_norm), tx)
    if max_skips is None:
        return tx
    if max_skips < 1:
        raise ValueError(f"max_skips is {max_skips}: give an integer of at least 1, or None")
    return optax.apply_if_finite(tx, max_skips)


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
