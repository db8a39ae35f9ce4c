"""Export of models to files that run without the code that made them."""

import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from mmvae_jax.batch import Batch
from mmvae_jax.checks import check_count
from mmvae_jax.inference import decode, encode, predict
from mmvae_jax.inputs.paths import as_path
from mmvae_jax.model import MMVAE
from mmvae_jax.saving.exported import FORMAT, KEY_IMPL, MANIFEST, PARAMS
from mmvae_jax.saving.files import check_new, sha256, whole_folder
from mmvae_jax.saving.named_arrays import split_model

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

Params = dict[str, jax.Array]


class Program(NamedTuple):
    """A function to export, and shapes and types of its arguments after the parameters."""

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

    The folder holds::

        <path>/manifest.json      settings, versions, SHA-256 of the other files
        <path>/params.npz         the parameters, once
        <path>/encode.bin         data, mask, key -> z [b, N, d]
        <path>/encode_mean.bin    data, mask      -> z [b, 1, d]
        <path>/decode.bin         z [b, d]        -> {modality: [b, *input_dim]}
        <path>/predict.bin        data, mask, key -> {modality: [b, N, *input_dim]}
        <path>/predict_mean.bin   data, mask      -> {modality: [b, 1, *input_dim]}

    The batch size b is open. Every program takes all modalities and a mask, and so serves every
    choice of modalities to condition on. Convolutions on CPU hold the patches of a whole batch at
    once: give an exported model thousands of images in several calls.

    Args:
      model: an MMVAE; random layers are off.
      path: new or empty folder; it appears with all its files or not at all.
      platforms: platforms that the programs can run on, among cpu, cuda, rocm and tpu; this
        machine need not have them.
      num_samples: number N of draws per example.

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
    path = as_path(path)
    num_samples = check_count("num_samples", num_samples)
    _check_options(platforms)
    check_new(path)
    params, programs = _programs(model, num_samples)
    exported = {name: _trace(program, params, platforms) for name, program in programs.items()}
    manifest = {
        "format": FORMAT,
        "versions": _versions(),
        "platforms": list(platforms),
        "num_samples": num_samples,
        "config": model.config.describe(),
        "programs": list(exported),
        "params": {name: str(x.dtype) for name, x in params.items()},
    }
    with whole_folder(path) as folder:
        for name, program in exported.items():
            (folder / f"{name}.bin").write_bytes(program.serialize())
        _write_params(folder / PARAMS, params)
        manifest["sha256"] = {file.name: sha256(file) for file in sorted(folder.iterdir())}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return path


def _check_options(platforms: Sequence[str]) -> None:
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown or not platforms:
        raise ValueError(f"platforms is {platforms!r}: choose among {list(PLATFORMS)}")
    if importlib.util.find_spec("flatbuffers") is None:
        raise ImportError("jax.export writes with flatbuffers: pip install 'mmvae_jax[export]'")


def _programs(model: MMVAE, num_samples: int) -> tuple[Params, dict[str, Program]]:
    """Returns the model's arrays by path, and its functions with these as first argument."""
    params, merge = split_model(model)
    dims, dim = model.config.input_dims, model.config.axes.size
    (b,) = jax.export.symbolic_shape("b")
    data = {name: jax.ShapeDtypeStruct((b, *shape), jnp.float32) for name, shape in dims.items()}
    mask = {name: jax.ShapeDtypeStruct((b,), bool) for name in dims}
    bits = _like(jax.random.key_data(jax.random.key(0, impl=KEY_IMPL)))
    latents = jax.ShapeDtypeStruct((b, dim), jnp.float32)

    def drawing(function):
        def call(params, data, mask, key):
            key = jax.random.wrap_key_data(key, impl=KEY_IMPL)
            return function(merge(params), Batch(data, mask), key, N=num_samples)

        return Program(call, (data, mask, bits))

    def averaging(function):
        def call(params, data, mask):
            return function(merge(params), Batch(data, mask), None, return_mean=True)

        return Program(call, (data, mask))

    return params, {
        "encode": drawing(encode),
        "encode_mean": averaging(encode),
        "decode": Program(lambda params, z: decode(merge(params), z), (latents,)),
        "predict": drawing(predict),
        "predict_mean": averaging(predict),
    }


def _trace(program: Program, params: Params, platforms: Sequence[str]) -> jax.export.Exported:
    trace = jax.export.export(jax.jit(program.function), platforms=tuple(platforms))
    try:
        return trace(jax.tree.map(_like, params), *program.inputs)
    except TypeError as error:
        error.add_note("The batch size is open: networks may use x.shape[0], but not len(x).")
        raise


def _versions() -> dict[str, str]:
    names = ("mmvae_jax", "jax", "jaxlib", "flax")
    found = [d for name in names for d in importlib.metadata.distributions(name=name)]
    return {distribution.name: distribution.version for distribution in found}


def _write_params(file: Path, params: Mapping[str, jax.Array]) -> None:
    """Writes the parameters for a reader that has NumPy, but perhaps not safetensors."""
    arrays = {name: np.asarray(x) for name, x in params.items()}
    # NumPy's files hold its own types; others, such as bfloat16, go in as integers of their size.
    stored = {
        name: x.view(f"u{x.itemsize}") if x.dtype.kind == "V" else x for name, x in arrays.items()
    }
    np.savez(file, allow_pickle=False, **stored)


def _like(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
