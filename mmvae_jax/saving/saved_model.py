"""The files of a saved model: settings, arrays and a card, and checks that they fit each other."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx
from flax.typing import Dtype
from jaxtyping import PyTree

from mmvae_jax.config import MMVAEConfig
from mmvae_jax.model import MMVAE, entries
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.saving.files import differences, read_json, sha256
from mmvae_jax.saving.model_card import class_path, model_card
from mmvae_jax.saving.named_arrays import split_model

#: Format of the folder. Version 0.1.0 wrote 1, which has the types and shapes of the arrays too.
FORMAT, READABLE = 2, (1, 2)
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)

#: Types of arrays that safetensors writes and reads back into NumPy.
TYPES = re.compile(r"bfloat16|float(16|32|64)|u?int(8|16|32|64)|bool")

Networks = dict[str, dict[str, Any]]


class Saved(NamedTuple):
    """The content of a saved model's ``config.json``.

    Attributes:
      config: settings of the model.
      dtype: type that the default networks compute in, None for that of inputs and parameters.
      networks: ``{"encoders": {modality: class}, "decoders": ...}`` of custom networks, which
        whoever loads the model gives; the names of their classes are there to be read.
      sha256: SHA-256 of the file of weights.
    """

    config: MMVAEConfig
    dtype: str | None
    networks: Mapping[str, Mapping[str, str]]
    sha256: str


def write_model(
    folder: Path, model: MMVAE, name: str, *, metrics: Mapping[str, Any] | None, license: str | None
) -> None:
    """Writes all files of a model into a folder.

    Raises:
      ValueError: if a likelihood is a function, or a variable has a type that the file cannot
        hold.
    """
    config = json.loads(model.config.to_json())  # which refuses functions
    arrays = {path: _on_host(path, x) for path, x in split_model(model)[0].items()}
    weights = folder / WEIGHTS_FILE
    weights.write_bytes(safetensors.numpy.save(arrays))
    networks, dtype = _custom_networks(model)
    saved = {
        "format": FORMAT,
        "model": config,
        "dtype": dtype,
        "networks": networks,
        "sha256": sha256(weights),
    }
    card = model_card(model, name, networks=networks, metrics=metrics, license=license)
    (folder / CONFIG_FILE).write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def read_config(folder: Path) -> Saved:
    """Reads ``config.json``.

    Raises:
      FileNotFoundError: if the folder holds none.
      ValueError: if it belongs to something other than a saved model, or cannot be read.
    """
    file = folder / CONFIG_FILE
    content = read_json(file, source="a folder of save_pretrained")
    found = content.pop("format", None)
    if found not in READABLE:
        raise ValueError(
            f"{file} has the format {found}, expected {FORMAT}: give a folder of save_pretrained "
            "(the checkpoint_dir of a run is for mm.load), or use the version that wrote it"
        )
    content.pop("arrays", None)  # of format 1
    try:
        return Saved(config=MMVAEConfig.from_dict(content.pop("model")), **content)
    except (KeyError, TypeError, ValueError) as error:  # fields missing, unknown or invalid
        raise ValueError(f"{file} cannot be read: {error}") from error


def read_weights(folder: Path, saved: Saved, like: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Reads the arrays of a model by path.

    Args:
      folder: folder of the model.
      saved: content of its ``config.json``.
      like: arrays, or their shapes and types, by path in the model. The saved ones have to have
        the same paths, shapes and types, except that floats may have any precision.

    Returns:
      Arrays in the types that they were saved in.

    Raises:
      FileNotFoundError: if the file is missing.
      ValueError: if it is not the one that was written, if the arrays are not those in ``like``,
        or if JAX is set up without their types.
    """
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no {file.name}: save or download the model again")
    if sha256(file) != saved.sha256:
        raise ValueError(
            f"{file} ({file.stat().st_size} bytes) is cut short, damaged or of another model: its "
            f"sha256 is not the one in {CONFIG_FILE}; save or download the model again"
        )
    # Not by safetensors.flax, which turns float64 into float32 silently.
    stored = safetensors.numpy.load_file(file)
    found, expected = ({path: _describe(x) for path, x in own.items()} for own in (stored, like))
    if lines := differences(found, expected):
        raise ValueError(
            f"encoders and decoders do not have the arrays of the model in {folder}:\n"
            + "\n".join(lines[:10])
            + f"\n({len(lines)} differences.) Give networks of the architecture that was saved."
        )
    arrays = {path: jnp.asarray(x) for path, x in stored.items()}
    for path, x in arrays.items():
        if x.dtype != stored[path].dtype:
            raise ValueError(
                f"{path} is {stored[path].dtype}, which JAX has made {x.dtype}: load the model "
                "under jax.enable_x64(True)"
            )
    return arrays


def default_networks(config: MMVAEConfig, dtype: Dtype | None) -> Networks:
    """Returns the networks that MMVAE makes itself, with shapes and types in place of arrays."""
    model = nnx.eval_shape(lambda: MMVAE(config, dtype=dtype, rngs=nnx.Rngs(0)))
    return _networks(model)


def _networks(model: MMVAE) -> Networks:
    return {"encoders": entries(model.encoders), "decoders": entries(model.decoders)}


def _custom_networks(model: MMVAE) -> tuple[dict[str, dict[str, str]], str | None]:
    """Returns the classes of networks that are not the default, and the dtype of those that are."""
    encoders, decoders = _networks(model).values()
    heads = [n.loc for n in encoders.values() if isinstance(n, MLPEncoder)]
    heads += [n.out for n in decoders.values() if isinstance(n, MLPDecoder)]
    dtype = heads[0].dtype if heads else None
    default = default_networks(model.config, dtype)
    custom = {
        field: {
            name: class_path(network)
            for name, network in networks.items()
            if _structure(network) != _structure(default[field][name])
        }
        for field, networks in _networks(model).items()
    }
    return custom, None if dtype is None else jnp.dtype(dtype).name


def _structure(network: nnx.Module) -> tuple[nnx.GraphDef, PyTree]:
    """Everything that a network computes with, except the values of its parameters."""
    graphdef, variables = nnx.split(network)
    return graphdef, jax.tree.map(lambda x: x.shape, nnx.to_pure_dict(variables))


def _on_host(path: str, x: Any) -> np.ndarray:
    """Returns the array in row-major order, which the file expects."""
    is_array = isinstance(x, jax.Array | np.ndarray)
    kind = str(x.dtype) if is_array else type(x).__name__
    if not (is_array and TYPES.fullmatch(kind)):
        raise ValueError(
            f"{path} is {kind}, which {WEIGHTS_FILE} cannot hold: make it an array of integers, "
            "booleans or floats of 16 bits and more, or an attribute that is no variable"
        )
    return np.asarray(x, order="C")


def _describe(x: Any) -> str:
    """Returns type and shape, such as ``int32[2]``, or ``float[2, 3]`` of any precision."""
    is_float = jnp.issubdtype(x.dtype, jnp.floating)
    return f"{'float' if is_float else x.dtype}{list(x.shape)}"
