"""Models to share: saved in a folder of their own, or on the Hugging Face Hub, and loaded again."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from mmvae_jax.model import MMVAE, Modules
from mmvae_jax.saving.run_config import CONFIG_FILE
from mmvae_jax.saving.saved_model import (
    FILES,
    WEIGHTS_FILE,
    Saved,
    abstract_model,
    check_arrays,
    contents_of,
    named,
    read_config,
    read_weights,
    split,
)

#: "name" or "owner/name"; whatever else is given can only be a folder.
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def save_pretrained(
    model: MMVAE,
    folder: str | os.PathLike,
    *,
    metrics: Mapping[str, Any] | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model into a folder of its own, for ``from_pretrained`` to read.

        <folder>/config.json          settings; names, types and shapes of the arrays
        <folder>/model.safetensors    parameters and other variables, each once, by path in the
                                      model, such as ``encoders.image.hidden.0.kernel``
        <folder>/README.md            a model card

    Nothing is pickled. Random streams stay behind: they belong to the networks that
    ``from_pretrained`` is given. With several processes, take ``state.model()`` on all of them and
    save it on the first.

    Args:
      model: an MMVAE; its arrays may lie on several devices of this process.
      folder: new or empty; it appears with all its files or not at all.
      metrics: for the card: values by name, which mappings may group, such as the content of an
        experiment's ``metrics.json``.
      license: for the card, an identifier such as ``"apache-2.0"``.
      overwrite: replace a model that is saved there. Until the new one is there the old one stays
        whole, in its place or beside it as ``.<name>.replaced``, where it is found, too.

    Returns:
      The folder.

    Raises:
      FileExistsError: if there is anything at the path that may not be replaced.
      ValueError: if a likelihood is a function, or a variable has a type that the file cannot
        hold.

    >>> saved = mm.save_pretrained(model, folder / "sounds", license="apache-2.0")
    >>> sorted(file.name for file in saved.iterdir())
    ['README.md', 'config.json', 'model.safetensors']
    """
    place = Path(folder).resolve()
    _take_back(place)
    _check_place(place, overwrite=overwrite)
    contents = contents_of(model, place.name, metrics=metrics, license=license)
    with _whole_folder(place) as partial:
        for name, content in contents.items():
            (partial / name).write_bytes(content)
    return Path(folder)


def from_pretrained(
    folder_or_id: str | os.PathLike,
    *,
    encoders: Modules | None = None,
    decoders: Modules | None = None,
    revision: str | None = None,
    dtype: Dtype | None = None,
) -> MMVAE:
    """The model of a folder of ``save_pretrained``, or of a repository of ``push_to_hub``.

    Names and shapes are checked before anything is computed. Parameters have the types that they
    were saved in. Only arrays and JSON are read, never code.

    Args:
      folder_or_id: a folder, or else the id of a repository on the Hugging Face Hub, which is
        downloaded once; what is in its cache is found without a network.
      encoders: modules of the architecture that was saved, with any parameters, for modalities
        whose encoder is not the default; they stay as they are.
      decoders: the same of decoders.
      revision: branch, tag or commit of the repository.
      dtype: that the default networks compute in; as when they were saved if left out.

    Raises:
      FileNotFoundError: if there is no such folder, or it lacks a file.
      ImportError: if the hub is needed and huggingface_hub is missing.
      OSError: of huggingface_hub, if it cannot get the repository.
      ValueError: if the files are not those that were written, or the networks not those that
        were saved; the message names the file or the arrays.

    >>> same = mm.from_pretrained(mm.save_pretrained(model, folder / "sounds"))
    >>> same.config == config
    True
    """
    folder = _find(folder_or_id, revision)
    saved = read_config(folder)
    given = {"encoders": dict(encoders or {}), "decoders": dict(decoders or {})}
    _check_given(folder, saved, given)
    graphdef, streams, arrays = split(_skeleton(saved, given, dtype))
    names = named(arrays)
    check_arrays(folder, saved, names)
    found = read_weights(folder, saved)
    restored = jax.tree.unflatten(jax.tree.structure(arrays), [found[name] for name in names])
    return nnx.merge(graphdef, streams, restored, copy=True)


def push_to_hub(
    model: MMVAE,
    repo_id: str,
    *,
    metrics: Mapping[str, Any] | None = None,
    license: str | None = None,
    private: bool = False,
) -> str:
    """Upload what ``save_pretrained`` writes to the Hugging Face Hub, in one commit.

    The token is that of ``hf auth login`` or ``$HF_TOKEN``. Other files of the repository stay.

    Args:
      model: an MMVAE.
      repo_id: ``"owner/name"``; made if there is no such repository.
      metrics: as for ``save_pretrained``.
      license: as for ``save_pretrained``.
      private: whether a repository that is made is hidden from others.

    Returns:
      The address of the repository.

    Raises:
      ImportError: if huggingface_hub is missing.
      OSError: of huggingface_hub, if it cannot make the repository or upload.
      ValueError: as ``save_pretrained``, or if ``repo_id`` names no owner.

    >>> mm.push_to_hub(model, "owner/sounds", private=True)  # doctest: +SKIP
    'https://huggingface.co/owner/sounds'
    """
    if repo_id.count("/") != 1:
        raise ValueError(f"repo_id is {repo_id!r}: give 'owner/name'")
    hub = _hub()
    contents = contents_of(model, repo_id, metrics=metrics, license=license)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents.items():
            Path(folder, name).write_bytes(content)
        address = hub.create_repo(repo_id, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload the model")
    return str(address)


def _check_given(folder: Path, saved: Saved, given: Mapping[str, Modules]) -> None:
    missing = [
        f"  {field}[{name!r}]: {kind}"
        for field, own in saved.networks.items()
        for name, kind in own.items()
        if name not in given[field]
    ]
    if missing:
        raise ValueError(
            f"the model in {folder} has networks that are not the default:\n"
            + "\n".join(missing)
            + "\nGive modules of these architectures in encoders={...} and decoders={...}, with "
            "any parameters."
        )


def _skeleton(saved: Saved, given: Mapping[str, dict[str, Any]], dtype: Dtype | None) -> MMVAE:
    """The model with the given networks; of the others there are but names, shapes and types."""
    if dtype is None and saved.dtype is not None:
        dtype = jnp.dtype(saved.dtype)
    default = abstract_model(saved.config, dtype, given)
    encoders = dict(default.encoders.items()) | given["encoders"]
    decoders = dict(default.decoders.items()) | given["decoders"]
    return MMVAE(saved.config, encoders, decoders, rngs=nnx.Rngs(0))


def _find(folder_or_id: str | os.PathLike, revision: str | None) -> Path:
    """The folder that is named, or the one that a repository is downloaded to."""
    folder = Path(folder_or_id).resolve()
    for place in (folder, _beside(folder, "replaced")):
        if place.is_dir():
            if revision is not None:
                raise ValueError(
                    f"revision is {revision!r}, but {folder} is a folder, which has none: leave "
                    "revision out, or start from another folder to mean the hub"
                )
            return place
    if not isinstance(folder_or_id, str) or not HUB_ID.fullmatch(folder_or_id):
        raise FileNotFoundError(
            f"there is no folder {folder}: give one of save_pretrained, or the id of a repository, "
            "'owner/name'"
        )
    patterns = [CONFIG_FILE, WEIGHTS_FILE]
    try:
        found = _hub().snapshot_download(folder_or_id, revision=revision, allow_patterns=patterns)
    except (ImportError, OSError, ValueError) as error:
        error.add_note(f"{folder_or_id!r} was taken for a repository: there is no folder {folder}.")
        raise
    return Path(found)


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "the Hugging Face Hub needs huggingface_hub: pip install 'mmvae_jax[hub]'"
        ) from error
    return huggingface_hub


def _check_place(folder: Path, *, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: give a folder")
    present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if others := [name for name in present if name not in FILES]:
        raise FileExistsError(
            f"{folder} holds {others[0]!r}, which is no file of a saved model: give another folder"
        )
    if present and not overwrite:
        raise FileExistsError(
            f"{folder} holds a saved model: give another folder, or overwrite=True to replace it"
        )


@contextlib.contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the other's place when all is written."""
    partial, replaced = _beside(folder, "partial"), _beside(folder, "replaced")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)  # of a process that was killed
            folder.rename(replaced)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # there only if something went wrong
    shutil.rmtree(replaced, ignore_errors=True)


def _take_back(folder: Path) -> None:
    """Undo what a process did that was killed between the two renamings of an overwrite."""
    replaced = _beside(folder, "replaced")
    if replaced.is_dir() and not folder.exists():
        replaced.rename(folder)


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{what}")
