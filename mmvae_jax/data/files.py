"""Where the files of a data set lie: in a folder that the user names, or fetched and checked."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmvae_jax.batch import MultimodalArrays

#: Environment variable that names the folder of data sets where no `data_dir` is given.
ENVIRONMENT = "MMVAE_DATA"

Folder = str | os.PathLike[str]


class Splits(NamedTuple):
    """A data set's examples to train on and to test on, with labels.

    Attributes:
      train: to train on.
      test: unseen in training.
    """

    train: MultimodalArrays
    test: MultimodalArrays


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file that somebody publishes, what it holds being known.

    Attributes:
      path: where it belongs in the folder of data sets, such as "svhn/train_32x32.mat".
      others: other places in that folder where it is looked for.
      urls: where it can be downloaded, tried in this order.
      checksum: of its bytes, as pooch writes it: "md5:..." or "sha256:...".
    """

    path: str
    others: tuple[str, ...] = ()
    urls: tuple[str, ...]
    checksum: str


def locate(file: PublishedFile, data_dir: Folder | None = None) -> Path:
    """Returns the path of a file, which is downloaded if no folder is named.

    A folder that is named, by ``data_dir`` or else by the environment variable MMVAE_DATA, is read
    and nothing else; a ".gz" there may be unpacked. Without one, pooch downloads the file to its
    cache, once, and compares the checksum. Files of a named folder are taken as they are, for
    compressing the same content again gives other bytes.

    Raises:
      FileNotFoundError: if the folder lacks the file, or no download gave the right bytes.
      ImportError: if no folder is named and pooch is missing.
    """
    folder = data_folder(data_dir)
    if folder is None:
        return _fetch(file)
    places = [file.path, *file.others]
    unpacked = [place.removesuffix(".gz") for place in places if place.endswith(".gz")]
    for place in places + unpacked:
        if (folder / place).is_file():
            return folder / place
    raise FileNotFoundError(f"{folder} lacks {' and '.join(places)}: {_advice(file, folder)}")


def locate_folder(
    dataset: str, places: Sequence[str], *, data_dir: Folder | None, source: str
) -> Path:
    """Returns the first of these folders that exists in the folder of data sets.

    Args:
      dataset: its name.
      places: where the data set may lie, the usual place first.
      data_dir: folder of data sets; that of the environment variable MMVAE_DATA if left out.
      source: where it can be had, "download it from ..., which gives ...".

    Raises:
      FileNotFoundError: if no folder is named or it has none of the places.
    """
    folder = data_folder(data_dir)
    if folder is None:
        raise FileNotFoundError(
            f"data_dir is None and ${ENVIRONMENT} is not set, but no checksum of {dataset} is "
            f"known by which to check a download: {source}; put it into FOLDER/{places[0]} and "
            "give data_dir=FOLDER"
        )
    for place in places:
        if (folder / place).is_dir():
            return folder / place
    raise FileNotFoundError(
        f"{folder} lacks {dataset}, looked for in {' and '.join(places)}: {source}; put it into "
        f"{folder / places[0]}"
    )


def data_folder(data_dir: Folder | None = None) -> Path | None:
    """Returns ``data_dir``, or else the folder that MMVAE_DATA names, or else None.

    Raises:
      FileNotFoundError: if there is no such folder.
    """
    named = data_dir or os.environ.get(ENVIRONMENT)
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        field = "data_dir" if data_dir else f"${ENVIRONMENT}"
        raise FileNotFoundError(f"{field} is {folder}, which is no folder: choose one that exists")
    return folder


def _fetch(file: PublishedFile) -> Path:
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            f"data_dir is None and ${ENVIRONMENT} is not set, and downloads need pooch: "
            f"pip install 'mmvae_jax[data]', or {_advice(file, 'FOLDER')} and give data_dir=FOLDER"
        ) from error
    target = Path(pooch.os_cache("mmvae_jax")) / file.path
    failures = []
    for url in file.urls:
        try:
            return Path(pooch.retrieve(url, file.checksum, fname=target.name, path=target.parent))
        except (OSError, ValueError) as error:  # No connection, an HTTP status, other bytes.
            failures.append(f"{url}: {error}")
    raise FileNotFoundError(
        f"no download gave {file.path} ({'; '.join(failures)}): {_advice(file, 'FOLDER')} and "
        f"give data_dir=FOLDER or set ${ENVIRONMENT}"
    )


def _advice(file: PublishedFile, folder: Folder) -> str:
    return (
        f"download it from {' or '.join(file.urls)} ({file.checksum}) to {Path(folder) / file.path}"
    )
