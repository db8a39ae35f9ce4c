"""Files of results that commands write."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from mmvae_jax.saving.files import whole_file, write_npz


def check_out_file(file: Path) -> None:
    """Checks that a file of results is new, and that its name says what it is.

    Raises:
      FileExistsError: if it exists.
      FileNotFoundError: if its folder does not.
      ValueError: for a name that does not end in .npz.
    """
    if file.suffix != ".npz":
        raise ValueError(f"--out is {file}: arrays are written as .npz, give {file.stem}.npz")
    if file.exists():
        raise FileExistsError(f"--out is {file}: it exists, and nothing is overwritten")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"--out is {file}: make the folder {file.parent} first")


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray], shown: Sequence[str]) -> None:
    """Writes arrays into an .npz file, and prints a line for each of those shown."""
    with whole_file(file) as partial:
        write_npz(partial, arrays)
    for name in shown:
        print(f"{name}: {arrays[name].dtype}{list(arrays[name].shape)} in {file}")


def warn_of_unavailable(
    available: Bool[np.ndarray, " n"], given: Sequence[str], placeholders: str
) -> None:
    """Prints a warning of the rows that observe nothing given, and of what stands in for them."""
    print(
        f"warning: {(~available).sum()} of {len(available)} rows observe nothing of "
        f"{', '.join(given)}: {placeholders}",
        file=sys.stderr,
    )
