"""Models to share: saved in a folder or on the Hugging Face Hub, and loaded again."""

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from mmvae_jax.inputs.paths import as_path
from mmvae_jax.model import MMVAE, Modules
from mmvae_jax.saving.files import present, whole_folder
from mmvae_jax.saving.named_arrays import split_model
from mmvae_jax.saving.saved_model import (
    CONFIG_FILE,
    FILES,
    WEIGHTS_FILE,
    Networks,
    Saved,
    default_networks,
    read_config,
    read_weights,
    write_model,
)

#: "name" or "owner/name"; any other text can only be a folder.
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def save_pretrained(
    model: MMVAE,
    folder: str | os.PathLike,
    *,
    metrics: Mapping[str, Any] | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a model into a folder, for ``from_pretrained`` to read.

    The folder holds::

        <folder>/config.json          settings
        <folder>/model.safetensors    parameters and other variables, each once, by path in the
                                      model, such as ``encoders.image.hidden.0.kernel``
        <folder>/README.md            a model card

    Nothing is pickled. The state of random streams is not saved: it belongs to the networks that
    ``from_pretrained`` is given. With several processes, call ``state.model()`` on all of them and
    save the model on the first.

    Args:
      model: an MMVAE; its arrays may lie on several devices of this process.
      folder: new or empty folder; it appears with all its files or not at all.
      metrics: values by name for the card, in nested mappings if need be, such as the content of
        an experiment's ``metrics.json``.
      license: identifier for the card, such as ``"apache-2.0"``.
      overwrite: True to replace a saved model. It stays whole until the new one is there: in its
        place, or as ``.<name>.replaced`` beside it, where ``from_pretrained`` finds it, too.

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
    place = as_path(folder, "folder").resolve()
    _check_place(present(place), overwrite=overwrite)
    with whole_folder(place) as partial:
        write_model(partial, model, place.name, metrics=metrics, license=license)
    return as_path(folder)


def from_pretrained(
    folder_or_id: str | os.PathLike,
    *,
    encoders: Modules | None = None,
    decoders: Modules | None = None,
    revision: str | None = None,
    dtype: Dtype | None = None,
) -> MMVAE:
    """Loads a model from a folder of ``save_pretrained`` or a repository of ``push_to_hub``.

    Only arrays and JSON are read, never code. Parameters have the types that they were saved in.

    Args:
      folder_or_id: a folder, or else the id of a repository on the Hugging Face Hub, which is
        downloaded once and then found in its cache without a network.
      encoders: modules of the architecture that was saved, with any parameters, for modalities
        whose encoder is not the default; they stay as they are.
      decoders: modules of the architecture that was saved, likewise.
      revision: branch, tag or commit of the repository.
      dtype: type that the default networks compute in; by default the one that was saved.

    Raises:
      FileNotFoundError: if there is no such folder, or it lacks a file.
      ImportError: if the hub is needed and huggingface_hub is missing.
      OSError: from huggingface_hub, if it cannot get the repository.
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
    if dtype is None and saved.dtype is not None:
        dtype = jnp.dtype(saved.dtype)
    default = default_networks(saved.config, dtype)
    networks = {field: default[field] | given[field] for field in default}
    arrays, merge = split_model(MMVAE(saved.config, **networks, rngs=nnx.Rngs(0)))
    return merge(read_weights(folder, saved, arrays))


def push_to_hub(
    model: MMVAE,
    repo_id: str,
    *,
    metrics: Mapping[str, Any] | None = None,
    license: str | None = None,
    private: bool = False,
) -> str:
    """Uploads the files of ``save_pretrained`` to the Hugging Face Hub, in one commit.

    The token is that of ``hf auth login`` or ``$HF_TOKEN``. Other files of the repository stay.

    Args:
      model: an MMVAE.
      repo_id: repository, ``"owner/name"``; created if it does not exist.
      metrics: values for the card, as in ``save_pretrained``.
      license: identifier for the card, as in ``save_pretrained``.
      private: True to hide a repository that is created from others.

    Returns:
      The address of the repository.

    Raises:
      ImportError: if huggingface_hub is missing.
      OSError: from huggingface_hub, if it cannot create the repository or upload.
      ValueError: as ``save_pretrained``, or if ``repo_id`` names no owner.

    >>> mm.push_to_hub(model, "owner/sounds", private=True)  # doctest: +SKIP
    'https://huggingface.co/owner/sounds'
    """
    if repo_id.count("/") != 1:
        raise ValueError(f"repo_id is {repo_id!r}: give 'owner/name'")
    hub = _hub()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), model, repo_id, metrics=metrics, license=license)
        address = hub.create_repo(repo_id, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload the model")
    return str(address)


def _check_given(folder: Path, saved: Saved, given: Networks) -> None:
    missing = [
        f"  {field}[{name!r}]: {kind}"
        for field, custom in saved.networks.items()
        for name, kind in custom.items()
        if name not in given[field]
    ]
    if missing:
        raise ValueError(
            f"the model in {folder} has networks that are not the default:\n"
            + "\n".join(missing)
            + "\nGive modules of these architectures in encoders={...} and decoders={...}, with "
            "any parameters."
        )


def _find(folder_or_id: str | os.PathLike, revision: str | None) -> Path:
    """Returns the folder with this name, or the one that a repository is downloaded to."""
    folder = as_path(folder_or_id, "folder_or_id").resolve()
    if (place := present(folder)).is_dir():
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
    """Imports huggingface_hub, which only sharing needs."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "the Hugging Face Hub needs huggingface_hub: pip install 'mmvae_jax[hub]'"
        ) from error
    return huggingface_hub


def _check_place(folder: Path, *, overwrite: bool) -> None:
    """Checks that nothing is replaced but, if ``overwrite``, a saved model."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    may_replace = overwrite and names <= set(FILES)
    if folder.is_file() or (names and not may_replace):
        raise FileExistsError(
            f"{folder} exists: give a new folder, or overwrite=True if it holds only a saved model"
        )
