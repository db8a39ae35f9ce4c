"""The files of a saved model: what is in them, and whether it is what was written."""

import hashlib
import json
from collections.abc import Iterable, Mapping
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
from mmvae_jax.model import MMVAE
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.saving.model_card import class_path, model_card
from mmvae_jax.saving.run_config import CONFIG_FILE, differences

#: Of the files; what older versions cannot read has another one.
FORMAT = 1
WEIGHTS_FILE, CARD_FILE = "model.safetensors", "README.md"
FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)

FLOATS = ("bfloat16", "float16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
#: Types of arrays that safetensors writes and reads back into NumPy.
TYPES = (*FLOATS, *INTEGERS, "bool")


class Saved(NamedTuple):
    """What config.json says of a model.

    Attributes:
      config: its settings.
      dtype: that the default networks compute in, None for that of inputs and parameters.
      networks: ``{"encoders": {modality: class}, "decoders": ...}`` of those that are not the
        default; the names of the classes are for people to read.
      arrays: type and shape by path in the model, such as ``float32[784, 512]``.
      sha256: of the file of weights.
    """

    config: MMVAEConfig
    dtype: str | None
    networks: Mapping[str, Mapping[str, str]]
    arrays: Mapping[str, str]
    sha256: str


def contents_of(
    model: MMVAE, name: str, *, metrics: Mapping[str, Any] | None, license: str | None
) -> dict[str, bytes]:
    """All files of a model, by name.

    Raises:
      ValueError: if a likelihood is a function, or a variable has a type that the file cannot
        hold.
    """
    config = json.loads(model.config.to_json())  # which refuses functions
    arrays = {path: _on_host(path, x) for path, x in named(split(model)[2]).items()}
    weights = safetensors.numpy.save(arrays)
    networks, dtype = _own_networks(model)
    saved = {
        "format": FORMAT,
        "model": config,
        "dtype": dtype,
        "networks": networks,
        "arrays": {path: _describe(x) for path, x in arrays.items()},
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    card = model_card(model, name, networks=networks, metrics=metrics, license=license)
    return {
        CONFIG_FILE: (json.dumps(saved, indent=2) + "\n").encode(),
        WEIGHTS_FILE: weights,
        CARD_FILE: card.encode(),
    }


def read_config(folder: Path) -> Saved:
    """What config.json says.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is none of a saved model, or cannot be read.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} lacks {CONFIG_FILE}: give a folder of save_pretrained")
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        found = told.pop("format", None) if isinstance(told, dict) else None
        if found != FORMAT:
            raise ValueError(
                f"its format is {found}, expected {FORMAT}: give a folder of save_pretrained (the "
                "checkpoint_dir of a run is for mm.load), or use the version that wrote it"
            )
        return Saved(config=MMVAEConfig.from_dict(told.pop("model")), **told)
    except (KeyError, TypeError, ValueError) as error:  # fields missing, unknown, of other values
        raise ValueError(f"{file} cannot be read: {error}") from error


def check_arrays(folder: Path, saved: Saved, model: Mapping[str, Any]) -> None:
    """Compare the arrays of a model, by path, with those that were saved.

    Floats of another precision will do: those that were saved take their places as they are.

    Raises:
      ValueError: naming the arrays that differ.
    """
    given = {}
    for path, x in model.items():
        dtype = saved.arrays.get(path, "").partition("[")[0]
        are_floats = dtype in FLOATS and str(x.dtype) in FLOATS
        given[path] = _describe(x, dtype if are_floats else x.dtype)
    if lines := differences(saved.arrays, given):
        raise ValueError(
            f"encoders and decoders do not have the arrays of the model in {folder}:\n"
            + "\n".join(lines[:10])
            + f"\n({len(lines)} differences.) Give networks of the architecture that was saved."
        )


def read_weights(folder: Path, saved: Saved) -> dict[str, jax.Array]:
    """The arrays by path in the model, in the types that they were saved in.

    Raises:
      FileNotFoundError: if the file is missing.
      ValueError: if it is not the one that was written, or JAX is set up without the types.
    """
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} lacks {WEIGHTS_FILE}: save or download the model again")
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != saved.sha256:
        raise ValueError(
            f"{file} ({file.stat().st_size} bytes) is cut short, damaged or of another model: its "
            f"sha256 is not the one in {CONFIG_FILE}; save or download the model again"
        )
    stored = safetensors.numpy.load_file(file)
    if lines := differences({path: _describe(x) for path, x in stored.items()}, saved.arrays):
        raise ValueError(f"{file} does not hold what {CONFIG_FILE} says:\n" + "\n".join(lines[:10]))
    arrays = {path: jnp.asarray(x) for path, x in stored.items()}
    for path, x in arrays.items():
        if x.dtype != stored[path].dtype:
            raise ValueError(
                f"{path} is {stored[path].dtype}, which JAX has made {x.dtype}: load the model "
                "under jax.enable_x64(True)"
            )
    return arrays


def split(model: MMVAE) -> tuple[nnx.GraphDef, nnx.State, PyTree]:
    """The structure of a model, its random streams, and its other variables."""
    graphdef, streams, arrays = nnx.split(model, nnx.RngState, ...)
    return graphdef, streams, nnx.to_pure_dict(arrays)


def named(arrays: PyTree) -> dict[str, Any]:
    """Arrays by path in the model, in the order of a pytree's leaves.

    Raises:
      ValueError: if two arrays have the same path.
    """
    leaves = jax.tree.leaves_with_path(arrays)
    paths = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    if twice := sorted({path for path in paths if paths.count(path) > 1}):
        raise ValueError(f"the model has several arrays {twice[0]!r}: rename a modality")
    return {path: x for path, (_, x) in zip(paths, leaves, strict=True)}


def abstract_model(
    config: MMVAEConfig, dtype: Dtype | None, others: Mapping[str, Iterable[str]]
) -> MMVAE:
    """The model with default networks, with shapes and types in the place of arrays.

    Args:
      config: its settings.
      dtype: that the networks compute in.
      others: ``{"encoders": modalities, "decoders": modalities}`` that get an empty module.
    """

    def make() -> MMVAE:
        empty = {field: {name: nnx.Module() for name in names} for field, names in others.items()}
        return MMVAE(config, **empty, dtype=dtype, rngs=nnx.Rngs(0))

    return nnx.eval_shape(make)


def _own_networks(model: MMVAE) -> tuple[dict[str, dict[str, str]], str | None]:
    """Which networks are not the default, by class; and what those compute in that are."""
    networks = {"encoders": model.encoders, "decoders": model.decoders}
    kinds = {"encoders": MLPEncoder, "decoders": MLPDecoder}
    others = {
        field: [name for name, network in found.items() if not isinstance(network, kinds[field])]
        for field, found in networks.items()
    }
    heads = [n.loc for n in model.encoders.values() if isinstance(n, MLPEncoder)]
    heads += [n.out for n in model.decoders.values() if isinstance(n, MLPDecoder)]
    dtype = heads[0].dtype if heads else None
    default = abstract_model(model.config, dtype, others)
    own = {
        field: {
            name: class_path(network)
            for name, network in found.items()
            if _traits(network) != _traits(getattr(default, field)[name])
        }
        for field, found in networks.items()
    }
    return own, None if dtype is None else jnp.dtype(dtype).name


def _traits(network: Any) -> tuple[nnx.GraphDef, PyTree]:
    """All that makes two networks compute the same once they have the same parameters."""
    graphdef, variables = nnx.split(network)
    return graphdef, jax.tree.map(lambda x: x.shape, nnx.to_pure_dict(variables))


def _on_host(path: str, x: Any) -> np.ndarray:
    """The array row by row, which is how the file holds arrays."""
    is_array = isinstance(x, jax.Array | np.ndarray)
    kind = str(x.dtype) if is_array else type(x).__name__
    if not is_array or kind not in TYPES:
        raise ValueError(
            f"{path} is {kind}, which {WEIGHTS_FILE} cannot hold: make it an array of one of the "
            f"types {list(TYPES)}, or an attribute that is no variable"
        )
    return np.asarray(x, order="C")


def _describe(x: Any, dtype: Any = None) -> str:
    return f"{x.dtype if dtype is None else dtype}{list(x.shape)}"
