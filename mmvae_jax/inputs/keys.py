"""Random keys: the form in which every public function takes its randomness."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray


def as_key(key: Any, field: str = "key") -> PRNGKeyArray:
    """Returns a single new-style key.

    Raw keys of ``jax.random.PRNGKey`` give the draws of ``jax.random.key`` of the same seed.

    Args:
      key: a key of ``jax.random.key``, or of ``jax.random.PRNGKey``.
      field: name of the argument, for the error.

    Raises:
      ValueError: for anything else, such as an integer or several keys.
    """
    is_array = isinstance(key, jax.Array | np.ndarray)
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.shape == ():
            return key
        raise ValueError(
            f"{field} is an array of keys of shape {key.shape}: give one of them, or map over them "
            "with jax.vmap"
        )
    raw_shape = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
    if is_array and key.dtype == np.uint32 and key.shape == raw_shape:
        return jax.random.wrap_key_data(jnp.asarray(key))
    described = f"{key.dtype}{list(key.shape)}" if is_array else repr(key)
    raise ValueError(f"{field} is {described}: give jax.random.key(seed)")


def as_optional_key(key: Any, field: str = "key") -> PRNGKeyArray | None:
    """Returns a single new-style key, or None for None; errors are those of ``as_key``."""
    return None if key is None else as_key(key, field)
