"""Masks of examples ``[b]`` and of their entries ``[b, *entries]``, of NumPy or JAX."""

from typing import Any


def observed_rows(mask: Any) -> Any:
    """Returns True for the examples ``[b]`` with at least one observed entry."""
    return mask.any(tuple(range(1, mask.ndim))) if mask.ndim > 1 else mask


def over_axes(mask: Any, ndim: int) -> Any:
    """Returns a mask with further axes of length one, ``ndim`` in all."""
    return mask.reshape(*mask.shape, *[1] * (ndim - mask.ndim))
