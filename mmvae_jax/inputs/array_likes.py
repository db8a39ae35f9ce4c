"""Conversion of array-likes of other libraries, by position, to arrays that JAX can hold.

Libraries are recognised by the module of a type, and never imported. Columns that lie in files,
such as data sets of h5py, stay as they are until their rows are read.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

NUMBERS = (
    "booleans, integers or floats (text: one-hot or token ids), because devices hold nothing else"
)


def as_array(field: str, x: Any) -> Any:
    """Returns an array-like as an array of a type that JAX has, and other objects unchanged.

    Args:
      field: name of the array-like, for errors.
      x: array of NumPy or JAX, list of numbers, frame or series of pandas or polars, tensor of
        PyTorch, column in a file, or any object with ``__array__``.

    Raises:
      ValueError: for masked entries, sparse matrices, ragged lists, and values other than booleans,
        integers and real numbers.

    >>> as_array("labels", [3, 1, 4])
    array([3, 1, 4])
    """
    column = as_column(field, x)
    if is_column(column):
        column = np.asarray(column if hasattr(column, "__array__") else column[:])
    return native(column) if isinstance(column, np.ndarray) else column


def as_column(field: str, x: Any) -> Any:
    """Returns ``as_array``, but columns in files as they are: nothing is read, nothing copied."""
    if isinstance(x, jax.Array):
        return x
    if not isinstance(x, np.ndarray) or type(x) not in (np.ndarray, np.memmap):
        x = _converted(field, x)
    if is_column(x) or isinstance(x, np.ndarray):
        _check_dtype(field, x.dtype)
    return x


def map_arrays(convert: Callable[[str, Any], Any], field: str, tree: Any) -> Any:
    """Returns a modality's data with ``convert(field, leaf)`` in the place of every array.

    A list stands for one array; inside of a pytree, only a list of plain numbers does.
    """
    if isinstance(tree, list) or jax.tree_util.all_leaves([tree]):
        return convert(field, tree)
    return jax.tree_util.tree_map_with_path(
        lambda path, x: convert(f"{field}{jax.tree_util.keystr(path)}", x), tree, is_leaf=_is_list
    )


def map_modalities(convert: Callable[[str, Any], Any], field: str, given: Any) -> Any:
    """Returns a mapping with ``map_arrays`` of each value; the same object if nothing changes."""
    if not isinstance(given, Mapping):
        return given
    mapped = {name: map_arrays(convert, f"{field}[{name!r}]", x) for name, x in given.items()}
    pairs = zip(jax.tree.leaves(mapped), jax.tree.leaves(given), strict=False)
    return given if all(a is b for a, b in pairs) else mapped


def is_column(x: Any) -> bool:
    """Returns True for a column other than an array: shape, NumPy's type, and slices of rows."""
    if isinstance(x, np.ndarray | jax.Array | np.generic):
        return False
    if not (hasattr(x, "shape") and hasattr(x, "__getitem__")):
        return False
    return isinstance(getattr(x, "dtype", None), np.dtype)


def is_numeric(dtype: Any) -> bool:
    """Returns True for booleans, integers and real numbers, of NumPy or JAX, in any byte order."""
    kinds = (np.bool_, np.integer, np.floating)
    is_duration = jnp.issubdtype(dtype, np.timedelta64)  # an integer, to NumPy
    return not is_duration and any(jnp.issubdtype(dtype, kind) for kind in kinds)


def native(x: np.ndarray) -> Shaped[np.ndarray, "..."]:
    """Returns an array in the machine's byte order, extended precision as double precision."""
    if x.dtype.isnative and not (x.dtype.kind == "f" and x.dtype.itemsize > 8):
        return x
    is_long = x.dtype.kind == "f" and x.dtype.itemsize > 8
    return x.astype(np.float64 if is_long else x.dtype.newbyteorder("="))


def _converted(field: str, x: Any) -> Any:
    """Returns an array-like that is no plain array as one, other objects unchanged."""
    if isinstance(x, np.ma.MaskedArray):
        return _unmasked(field, x)
    if isinstance(x, list):
        return _from_list(field, x)
    library = type(x).__module__.partition(".")[0]
    if library in ("scipy", "sparse") and hasattr(x, "nnz"):
        raise ValueError(
            f"{field} is a {type(x).__name__}, a sparse matrix: give an array, x.toarray()"
        )
    if library == "pandas" and hasattr(x, "to_numpy"):
        return _from_pandas(field, x)
    if library == "torch" and hasattr(x, "detach"):
        x = x.detach().cpu()
        return (x.float() if str(x.dtype) == "torch.bfloat16" else x).numpy()
    if is_column(x) or not hasattr(x, "__array__"):
        return x
    try:
        return np.asarray(x)
    except Exception as error:
        raise ValueError(f"{field} is a {type(x).__name__}: give an array ({error})") from error


def _unmasked(field: str, x: np.ma.MaskedArray) -> np.ndarray:
    num = int(np.ma.count_masked(x))
    if num:
        raise ValueError(
            f"{field} is a masked array with {num} masked entries: mask the modality of their "
            "rows (mask={...}), or fill them in, x.filled(value)"
        )
    return np.asarray(x.data)


def _from_list(field: str, x: list) -> Any:
    if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(x)):
        return jnp.asarray(x)
    if any(entry is None for entry in x):
        row = next(row for row, entry in enumerate(x) if entry is None)
        raise ValueError(
            f"{field} is None in row {row}: mm.incomplete_batch(config, data) takes lists with "
            "None for what is missing"
        )
    try:
        return np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{field} is a ragged list: give rows of one shape ({error})") from error


def _from_pandas(field: str, x: Any) -> np.ndarray:
    """Returns a series, an index or a frame by position; missing entries become NaN."""
    columns = x.dtypes.items() if hasattr(x, "columns") else [(x.name, x.dtype)]
    for name, dtype in columns:
        if getattr(dtype, "kind", "O") not in "biuf":
            raise ValueError(f"{field} has the column {name!r} of {dtype}: convert it to {NUMBERS}")
    array = x.to_numpy()
    # Booleans beside numbers, and columns with pandas' own NA, come as objects.
    return x.to_numpy(dtype=np.float64, na_value=np.nan) if array.dtype == object else array


def _check_dtype(field: str, dtype: Any) -> None:
    """Refuses types that no device holds; float0 is JAX's type of a derivative by integers."""
    if not is_numeric(dtype) and dtype != jax.dtypes.float0:
        raise ValueError(f"{field} is an array of {dtype}: convert it to {NUMBERS}")


def _is_list(x: Any) -> bool:
    """Returns True for a list that stands for an array: all of its leaves are plain numbers."""
    return isinstance(x, list) and all(
        isinstance(leaf, bool | int | float | np.generic) for leaf in jax.tree.leaves(x)
    )
