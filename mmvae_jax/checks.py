"""Checks of settings, shared by every module; errors name the field, the value and the fix.

A check of a number returns it as a plain Python number: NumPy's and JAX's scalars come from tuners,
shapes and reductions, and neither hash nor save as JSON like their values.
"""

import difflib
import math
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer


def plain(value: Any) -> Any:
    """Returns a scalar of NumPy or JAX as a Python number, any other value unchanged."""
    if isinstance(value, np.generic | np.ndarray | jax.Array) and not isinstance(value, Tracer):
        value = value.item() if value.ndim == 0 else value
    # Extended precision stays NumPy's own.
    return float(value) if isinstance(value, np.floating) else value


def check_count(field: str, value: Any) -> int:
    """Returns a plain integer, or raises ValueError unless it is at least 1."""
    return check_at_least(field, value, 1)


def check_at_least(field: str, value: Any, least: int) -> int:
    """Returns a plain integer, or raises ValueError unless it is at least ``least``."""
    number = plain(value)
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise ValueError(f"{field} is {number!r}: give an integer of at least {least}")
    return number


def check_positive(field: str, value: Any) -> int | float:
    """Returns a plain number, or raises ValueError unless it is finite and above 0."""
    number = plain(value)
    if not _is_finite(number) or number <= 0:
        raise ValueError(f"{field} is {number!r}: give a finite number above 0")
    return number


def check_not_negative(field: str, value: Any) -> int | float:
    """Returns a plain number, or raises ValueError unless it is finite and at least 0."""
    number = plain(value)
    if not _is_finite(number) or number < 0:
        raise ValueError(f"{field} is {number!r}: give a finite number of at least 0")
    return number


def check_share(field: str, value: Any) -> int | float:
    """Returns a plain number, or raises ValueError unless it is from 0 to below 1."""
    number = plain(value)
    if not _is_finite(number) or not 0 <= number < 1:
        raise ValueError(f"{field} is {number!r}: give a number of at least 0 and below 1")
    return number


def check_flag(field: str, value: Any) -> bool:
    """Returns a plain bool, or raises ValueError unless it is True or False."""
    flag = plain(value)
    if not isinstance(flag, bool):
        raise ValueError(f"{field} is {flag!r}: give True or False")
    return flag


def check_choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless the value is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{field} is {value!r}: choose one of {list(choices)}")


def check_modalities(field: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raises ValueError if a name is not one of the known modalities."""
    known = list(known)
    if unknown := [name for name in names if name not in known]:
        close = difflib.get_close_matches(str(unknown[0]), known, n=1)
        advice = f"; did you mean {close[0]!r}?" if close else ""
        listed = f"{known[:20]}{' and others' if len(known) > 20 else ''}"
        raise ValueError(
            f"{field} has the unknown modalities {unknown}: known are {listed}{advice}"
        )


def _is_finite(number: Any) -> bool:
    """Returns True for finite Python numbers other than bools."""
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return is_number and math.isfinite(number)
