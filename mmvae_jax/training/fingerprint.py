"""Fingerprints of functions and data, by which a resumed run knows them again."""

import functools
import hashlib
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from mmvae_jax.batch import AnyBatch, as_arrays
from mmvae_jax.data.arrays import num_examples, take
from mmvae_jax.training.saved_arrays import without_keys

#: Packages whose functions are known by name and settings: code differs between versions only.
LIBRARIES = {"mmvae_jax", "jax", "numpy", "optax", "flax", "distrax", "scipy", "chex"}
#: Bytes of a data set up to which every row is read, and the number of rows of a larger one.
SMALL, NUM_ROWS = 2**24, 64

PLAIN = bool | int | float | complex | str | bytes | None


def fingerprint(x: Any) -> str:
    """Returns eight digits for the code of functions and all constants that it refers to.

    Args:
      x: a function, a container or object of functions, arrays and plain values.
    """
    digest = hashlib.blake2b(digest_size=4)
    for part in _parts(x, set()):
        digest.update(part)
    return digest.hexdigest()


def describe_data(data: AnyBatch) -> dict[str, Any]:
    """Returns number of examples, type and shape of each modality, and a digest of the values.

    All rows of a small data set enter the digest, and rows at equal distances of a large one.
    """
    num = num_examples(data)
    first = as_arrays(take(data, np.array([0])))
    size = num * sum(np.asarray(x).nbytes for x in jax.tree.leaves(first.data))
    rows = np.arange(num) if size <= SMALL else np.linspace(0, num - 1, NUM_ROWS).astype(int)
    some = as_arrays(take(data, rows))
    digest = hashlib.blake2b(digest_size=4)
    for x in jax.tree.leaves((dict(some.data), some.mask, some.weight)):
        digest.update(np.ascontiguousarray(x).data)
    shapes = {name: _shapes(x) for name, x in first.data.items()}
    return {"num_examples": num, "modalities": shapes, "digest": digest.hexdigest()}


def _shapes(x: Any) -> str:
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(x)]
    return ", ".join(f"{a.dtype}{list(a.shape[1:])}" for a in arrays)


def _parts(x: Any, seen: set[int]) -> Iterator[bytes]:
    """Yields all that distinguishes x; of functions that refer to each other, each once."""
    if isinstance(x, PLAIN):
        yield repr(x).encode()
    elif isinstance(x, jax.Array | np.ndarray | np.generic):
        array = np.asarray(without_keys(x))
        yield f"{array.dtype}{array.shape}".encode() + array.tobytes()
    elif isinstance(x, Mapping):
        yield from _parts(sorted(x.items(), key=lambda item: repr(item[0])), seen)
    elif isinstance(x, set | frozenset):
        yield from _parts(sorted(x, key=repr), seen)
    elif isinstance(x, tuple | list):
        yield f"{len(x)}".encode()
        for item in x:
            yield from _parts(item, seen)
    elif id(x) not in seen:
        seen.add(id(x))
        yield from _parts_of_object(x, seen)


def _parts_of_object(x: Any, seen: set[int]) -> Iterator[bytes]:
    yield getattr(x, "__qualname__", type(x).__qualname__).encode()
    if isinstance(x, types.FunctionType):
        yield from _parts_of_function(x, seen)
    elif isinstance(x, functools.partial):
        yield from _parts((x.func, x.args, x.keywords), seen)
    elif isinstance(x, types.MethodType):
        yield from _parts((x.__func__, x.__self__), seen)
    elif isinstance(x, types.CodeType):
        yield from _parts((x.co_code, x.co_names, x.co_consts), seen)
    elif hasattr(x, "__wrapped__"):
        yield from _parts(x.__wrapped__, seen)
    elif not isinstance(x, type | types.ModuleType | types.BuiltinFunctionType):
        call = getattr(type(x), "__call__", None)  # noqa: B004
        own = call if isinstance(call, types.FunctionType) else None
        yield from _parts((own, getattr(x, "__dict__", None)), seen)


def _parts_of_function(x: types.FunctionType, seen: set[int]) -> Iterator[bytes]:
    yield from _parts((x.__defaults__, x.__kwdefaults__), seen)
    for cell in x.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:  # a name that is not yet bound
            continue
        yield from _parts(content, seen)
    root = (x.__module__ or "").partition(".")[0]
    if root in LIBRARIES or root in sys.stdlib_module_names:
        return
    yield from _parts(x.__code__, seen)
    for name in x.__code__.co_names:  # constants and helpers of the same module
        value = x.__globals__.get(name)
        is_own = isinstance(value, types.FunctionType) and value.__module__ == x.__module__
        if is_own or isinstance(value, PLAIN | tuple | np.ndarray | jax.Array):
            yield from _parts(value, seen)
