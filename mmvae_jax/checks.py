"""Checks of settings, shared by every module; errors name the field, the value and the fix."""

import math
from collections.abc import Iterable
from numbers import Integral
from typing import Any


def check_count(field: str, value: Any) -> None:
    """Raises ValueError unless the value is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{field} is {value!r}: give an integer of at least 1")


def check_at_least(field: str, value: Any, least: int) -> None:
    """Raises ValueError unless the value is an integer, NumPy's or not, of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{field} is {value!r}: give an integer of at least {least}")


def check_positive(field: str, value: Any) -> None:
    """Raises ValueError unless the value is a finite number above 0."""
    if not _is_finite(value) or value <= 0:
        raise ValueError(f"{field} is {value!r}: give a finite number above 0")


def check_not_negative(field: str, value: Any) -> None:
    """Raises ValueError unless the value is a finite number of at least 0."""
    if not _is_finite(value) or value < 0:
        raise ValueError(f"{field} is {value!r}: give a finite number of at least 0")


def check_share(field: str, value: Any) -> None:
    """Raises ValueError unless the value is a number from 0 to below 1."""
    if not _is_finite(value) or not 0 <= value < 1:
        raise ValueError(f"{field} is {value!r}: give a number of at least 0 and below 1")


def check_choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{field} is {value!r}: choose one of {list(choices)}")


def check_modalities(field: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raises ValueError if a name is not one of the known modalities."""
    known = list(known)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{field} has the unknown modalities {unknown}: known are {known}")


def _is_finite(value: Any) -> bool:
    """Returns True for finite Python numbers other than bools."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)
