"""Files of published data sets, found in a folder or downloaded and verified."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.inputs.paths import as_path

#: Environment variable that names the folder of data sets, used if no ``data_dir`` is given.
ENVIRONMENT = "MMVAE_DATA"

Folder = str | os.PathLike[str]


class Splits(NamedTuple):
    """The two splits of a data set, with labels.

    Attributes:
      train: examples to train on.
      test: examples to test on.
    """

    train: MultimodalArrays
    test: MultimodalArrays


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A published file of known content.

    Attributes:
      path: usual place in the folder of data sets, such as "svhn/train_32x32.mat".
      others: other accepted places in that folder.
      urls: addresses to download the file from, in order of preference.
      checksum: checksum of its bytes as pooch writes it, "md5:..." or "sha256:...".
    """

    path: str
    others: tuple[str, ...] = ()
    urls: tuple[str, ...]
    checksum: str


def locate(file: PublishedFile, data_dir: Folder | None = None) -> Path:
    """Returns the path of a file, downloading it only if no folder is named.

    A folder is named by ``data_dir``, or else by the environment variable ``MMVAE_DATA``. Its files
    are taken as they are, and a ".gz" file may be unpacked. Without a folder, pooch downloads the
    file into its cache once and verifies the checksum. Files of a named folder are not verified,
    because compressing the same content again gives other bytes.

    Raises:
      FileNotFoundError: if the folder lacks the file, or no download has the checksum.
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
    """Returns the first of several places that exists in the folder of data sets.

    Args:
      dataset: name of the data set, for messages.
      places: accepted places, the usual one first.
      data_dir: folder of data sets; that of the environment variable ``MMVAE_DATA`` if None.
      source: instruction for obtaining the data set, "download it from ..., which holds ...".

    Raises:
      FileNotFoundError: if no folder is named, or it has none of the places.
    """
    folder = data_folder(data_dir)
    if folder is None:
        raise FileNotFoundError(
            f"data_dir is None and ${ENVIRONMENT} is not set: {source}; put it into "
            f"FOLDER/{places[0]} and give data_dir=FOLDER ({dataset} is not downloaded, because it "
            "has no known checksum)"
        )
    for place in places:
        if (folder / place).is_dir():
            return folder / place
    raise FileNotFoundError(
        f"{folder} lacks {dataset} in {' and '.join(places)}: {source}; put it into "
        f"{folder / places[0]}"
    )


def data_folder(data_dir: Folder | None = None) -> Path | None:
    """Returns ``data_dir``, or else the folder that ``MMVAE_DATA`` names, or else None.

    Raises:
      FileNotFoundError: if the folder does not exist.
    """
    named = data_dir or os.environ.get(ENVIRONMENT)
    if not named:
        return None
    folder = as_path(named, "folder")
    if not folder.is_dir():
        field = "data_dir" if data_dir else f"${ENVIRONMENT}"
        raise FileNotFoundError(f"{field} is {folder}: choose a folder that exists")
    return folder


def _fetch(file: PublishedFile) -> Path:
    """Downloads a file into pooch's cache, or finds it there."""
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
        except (OSError, ValueError) as error:  # No connection, an HTTP error, or other bytes.
            failures.append(f"{url}: {error}")
    raise FileNotFoundError(
        f"no download gave {file.path} ({'; '.join(failures)}): {_advice(file, 'FOLDER')} and "
        f"give data_dir=FOLDER or set ${ENVIRONMENT}"
    )


def _advice(file: PublishedFile, folder: Folder) -> str:
    return (
        f"download it from {' or '.join(file.urls)} ({file.checksum}) to {Path(folder) / file.path}"
    )
