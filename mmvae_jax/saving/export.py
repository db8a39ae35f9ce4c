"""Models as files that run without the code that made them."""

import hashlib
import importlib.metadata
import importlib.util
import inspect
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmvae_jax.batch import Batch
from mmvae_jax.checks import check_count
from mmvae_jax.inference import decode, encode, predict
from mmvae_jax.model import MMVAE
from mmvae_jax.saving.exported import FORMAT, KEY_IMPL, MANIFEST, PARAMS

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

Params = dict[str, jax.Array]


class Program(NamedTuple):
    """A function to export, and what its arguments after the parameters look like."""

    function: Callable[..., Any]
    inputs: tuple[Any, ...]


def export(
    model: MMVAE,
    path: str | os.PathLike,
    *,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    num_samples: int = 1,
) -> Path:
    """Writes a model's ``encode``, ``decode`` and ``predict`` as StableHLO for ``load_exported``.

        <path>/manifest.json      settings, versions, signatures, SHA-256 of the other files
        <path>/params.npz         the parameters, once
        <path>/encode.bin         data, mask, key -> z [b, N, d]
        <path>/encode_mean.bin    data, mask      -> z [b, 1, d]
        <path>/decode.bin         z [b, d]        -> {modality: [b, *input_dim]}
        <path>/predict.bin        data, mask, key -> {modality: [b, N, *input_dim]}
        <path>/predict_mean.bin   data, mask      -> {modality: [b, 1, *input_dim]}

    The batch size b is open. Every program takes all modalities and a mask, and so serves every
    choice of what to condition on. Convolutions on CPU hold the patches of a whole batch at once:
    give an exported model thousands of images in several calls.

    Args:
      model: an MMVAE; random layers are off.
      path: a folder, new or empty; it appears with all its files or not at all.
      platforms: where the programs can run, of cpu, cuda, rocm and tpu; this machine need not
        have them.
      num_samples: draws per example, N.

    Returns:
      The folder.

    Raises:
      FileExistsError: if there is anything at the path: nothing is overwritten.
      ImportError: if flatbuffers is missing.
      TypeError: if a network needs the batch size as a number, as ``len(x)`` does.
      ValueError: for unknown platforms or a count below 1.

    >>> mm.export(model, folder / "exported", platforms=["cpu"]).name
    'exported'
    """
    path = Path(path)
    _check_options(path, platforms, num_samples)
    params, programs = _programs(model, num_samples)
    exported = {
        name: _traced(program, params, tuple(platforms)) for name, program in programs.items()
    }
    contents = {_file(name): bytes(program.serialize()) for name, program in exported.items()}
    contents[PARAMS] = _npz(params)
    manifest = {
        "format": FORMAT,
        "versions": _versions(),
        "platforms": list(platforms),
        "num_samples": num_samples,
        "config": model.config.describe(),
        "programs": {
            name: {"file": _file(name), **_signature(programs[name].function, program)}
            for name, program in exported.items()
        },
        "params": {name: str(x.dtype) for name, x in params.items()},
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
    }
    contents[MANIFEST] = (json.dumps(manifest, indent=2) + "\n").encode()
    _write(path, contents)
    return path


def _check_options(path: Path, platforms: Sequence[str], num_samples: int) -> None:
    check_count("num_samples", num_samples)
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown or not platforms:
        raise ValueError(f"platforms is {platforms!r}: choose among {list(PLATFORMS)}")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} exists, and nothing is overwritten: give a new folder")
    if importlib.util.find_spec("flatbuffers") is None:
        raise ImportError("jax.export writes with flatbuffers: pip install 'mmvae_jax[export]'")


def _programs(model: MMVAE, num_samples: int) -> tuple[Params, dict[str, Program]]:
    """The model's arrays by path, and its functions with these as their first argument."""
    params, restore = _parameterised(model)
    dims, dim = model.config.input_dims, model.config.latent_dim
    (b,) = jax.export.symbolic_shape("b")
    data = {name: jax.ShapeDtypeStruct((b, *shape), jnp.float32) for name, shape in dims.items()}
    mask = {name: jax.ShapeDtypeStruct((b,), bool) for name in dims}
    bits = _like(jax.random.key_data(jax.random.key(0, impl=KEY_IMPL)))
    latents = jax.ShapeDtypeStruct((b, dim), jnp.float32)

    def drawing(function):
        def call(params, data, mask, key):
            key = jax.random.wrap_key_data(key, impl=KEY_IMPL)
            return function(restore(params), Batch(data, mask), key, N=num_samples)

        return Program(call, (data, mask, bits))

    def averaging(function):
        def call(params, data, mask):
            return function(restore(params), Batch(data, mask), None, return_mean=True)

        return Program(call, (data, mask))

    return params, {
        "encode": drawing(encode),
        "encode_mean": averaging(encode),
        "decode": Program(lambda params, z: decode(restore(params), z), (latents,)),
        "predict": drawing(predict),
        "predict_mean": averaging(predict),
    }


def _parameterised(model: MMVAE) -> tuple[Params, Callable[[Params], MMVAE]]:
    """The model's arrays by path, and a function from such arrays to the model that has them.

    The state of random streams, a few numbers, stays in the function: files cannot hold keys.
    """
    graphdef, *states = nnx.split(model, nnx.RngState, ...)
    streams, arrays = map(nnx.to_pure_dict, states)
    leaves, treedef = jax.tree.flatten_with_path(arrays)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]

    def restore(params: Params) -> MMVAE:
        arrays = jax.tree.unflatten(treedef, [params[name] for name in names])
        return nnx.merge(graphdef, streams, arrays, copy=True)

    return dict(zip(names, (x for _, x in leaves), strict=True)), restore


def _traced(program: Program, params: Params, platforms: tuple[str, ...]) -> jax.export.Exported:
    shapes = jax.tree.map(_like, params)
    try:
        return jax.export.export(jax.jit(program.function), platforms=platforms)(
            shapes, *program.inputs
        )
    except TypeError as error:
        error.add_note("The batch size is open: networks may use x.shape[0], but not len(x).")
        raise


def _signature(function: Callable[..., Any], program: jax.export.Exported) -> dict[str, Any]:
    """Types and shapes of a program's inputs, without the parameters, and of its output."""
    shapes = [aval.str_short() for aval in program.in_avals]
    (_, *inputs), _ = jax.tree.unflatten(program.in_tree, shapes)
    _, *names = inspect.signature(function).parameters
    output = [aval.str_short() for aval in program.out_avals]
    return {
        "inputs": dict(zip(names, inputs, strict=True)),
        "output": jax.tree.unflatten(program.out_tree, output),
    }


def _versions() -> dict[str, str]:
    names = ("mmvae_jax", "jax", "jaxlib", "flax")
    found = [d for name in names for d in importlib.metadata.distributions(name=name)]
    return {distribution.name: distribution.version for distribution in found}


def _npz(params: Mapping[str, jax.Array]) -> bytes:
    arrays = {name: np.asarray(x) for name, x in params.items()}
    # NumPy's files hold its own types; others, such as bfloat16, go in as integers of their size.
    stored = {
        name: x.view(f"u{x.itemsize}") if x.dtype.kind == "V" else x for name, x in arrays.items()
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **stored)
    return buffer.getvalue()


def _write(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write the files beside the path, then move them there together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir()
    try:
        for name, content in contents.items():
            (partial / name).write_bytes(content)
        if path.exists():
            path.rmdir()  # refused unless it is empty
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # there only if something went wrong


def _file(name: str) -> str:
    return f"{name}.bin"


def _like(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
