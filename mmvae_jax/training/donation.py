"""Refusal of train states whose arrays a training step has taken over."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.core import Tracer

Jitted = TypeVar("Jitted", bound=Callable[..., Any])


def check_not_donated(state: Any) -> None:
    """Checks that a train state still has its arrays; tracers always do.

    Raises:
      ValueError: if a step was given the state before.
    """
    # A step takes all arrays at once: two stand for the others, which would cost half a step.
    for x in (state.step, *jax.tree.leaves(state.params)[:1]):
        is_concrete = isinstance(x, jax.Array) and not isinstance(x, Tracer)
        if is_concrete and x.is_deleted():
            raise ValueError(
                "state is deleted: train_step, train_steps and fit donate the memory of the state "
                "that they are given; use the state that they return"
            )


def refusing_donated(jitted: Jitted, check: Callable[..., None] | None = None) -> Jitted:
    """Returns a jitted function of a train state that checks the state before every call.

    ``check`` is one more check of the arguments, outside of the jitted function.

    The methods of a jitted function, such as ``lower``, stay.
    """
    original = jitted.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        check_not_donated(args[0] if args else kwargs.get("state"))
        if check is not None:
            check(*args, **kwargs)
        return jitted(*args, **kwargs)

    for name in ("lower", "trace", "eval_shape", "clear_cache"):
        setattr(call, name, getattr(jitted, name))
    return call  # pyright: ignore[reportReturnType]
