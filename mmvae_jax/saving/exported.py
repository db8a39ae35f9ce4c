"""Models that ``mmvae_jax.export`` wrote, called without the code that they were made with.

This file imports JAX and NumPy alone (JAX reads programs with the package flatbuffers): copied into
another project it works there as it does here.
"""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

FORMAT = 1
MANIFEST, PARAMS = "manifest.json", "params.npz"
KEY_IMPL = "threefry2x32"  # how programs turn keys into numbers: JAX's default


class Exported:
    """The functions of an exported MMVAE; of ``load_exported``.

    They compute what ``mm.encode``, ``mm.decode`` and ``mm.predict`` compute, from the same keys,
    for batches of any size (each size compiles once). Under ``jax.jit`` what a mask holds goes
    unchecked, and an example that observes nothing has NaN latents.

    Attributes:
      config: the settings of the model, as JSON has them.
      num_samples: draws per example, N.
      manifest: all that is known of the export: versions, platforms, signatures.
      params: ``{path: array}`` by path in the model.
    """

    def __init__(
        self,
        manifest: Mapping[str, Any],
        params: Mapping[str, jax.Array],
        programs: Mapping[str, jax.export.Exported],
    ):
        self.manifest = manifest
        self.config: dict[str, Any] = manifest["config"]
        self.num_samples: int = manifest["num_samples"]
        self.params = dict(params)
        self._programs = {name: jax.jit(program.call) for name, program in programs.items()}

    def encode(
        self,
        data: Mapping[str, ArrayLike],
        mask: Mapping[str, ArrayLike] | None = None,
        *,
        key: jax.Array | None = None,
        return_mean: bool = False,
    ) -> jax.Array:
        """Latents ``[b, N, d]`` drawn from the mixture of the observed experts.

        Args:
          data: ``{modality: [b, *input_dim]}`` of floats, or of bytes, which stand for intensities
            and are divided by 255; a categorical modality may hold integer classes,
            ``[b, *input_dim[:-1]]``. Modalities that it leaves out count as missing, which is how
            one conditions on some of them.
          mask: ``{modality: bool [b]}``, True where observed; None when all of ``data`` is. What
            stands in a missing place is never looked at.
          key: randomness, a ``jax.random.key``; not needed for the mean.
          return_mean: instead of drawing, the mean of the mixture, once: ``[b, 1, d]``.

        Raises:
          ValueError: naming the modality, what was expected and what came.
        """
        return self._call("encode", data, mask, key, return_mean)

    def decode(self, z: ArrayLike) -> dict[str, jax.Array]:
        """Decode latents ``[*n, d]`` into every modality, ``{modality: [*n, *input_dim]}``.

        Raises:
          ValueError: for latents of another size.
        """
        z, dim = jnp.asarray(z, jnp.float32), self.config["latent_dim"]
        if z.ndim == 0 or z.shape[-1] != dim:
            raise ValueError(f"z has shape {z.shape}, expected (..., {dim}): latent_dim is {dim}")
        decoded = self._programs["decode"](self.params, z.reshape(-1, dim))
        return {name: x.reshape(*z.shape[:-1], *x.shape[1:]) for name, x in decoded.items()}

    def predict(
        self,
        data: Mapping[str, ArrayLike],
        mask: Mapping[str, ArrayLike] | None = None,
        *,
        key: jax.Array | None = None,
        return_mean: bool = False,
    ) -> dict[str, jax.Array]:
        """Generate every modality from those observed, ``{modality: [b, N, *input_dim]}``.

        Arguments and errors are those of ``encode``.
        """
        return self._call("predict", data, mask, key, return_mean)

    def _call(self, name: str, data: Any, mask: Any, key: Any, return_mean: bool) -> Any:
        arrays = self._data(data)
        inputs = [arrays, self._mask(data, mask, len(next(iter(arrays.values()))))]
        if return_mean:
            return self._programs[f"{name}_mean"](self.params, *inputs)
        return self._programs[name](self.params, *inputs, _key_bits(key))

    def _data(self, data: Any) -> dict[str, jax.Array]:
        """Every modality as floats, zeros for those left out."""
        dims = {name: tuple(dim) for name, dim in self.config["input_dims"].items()}
        _check_names("data", data, list(dims))
        if not data:
            raise ValueError(f"data is empty: give at least one of {list(dims)}")
        arrays = {name: self._floats(name, jnp.asarray(x), dims[name]) for name, x in data.items()}
        sizes = {name: len(x) for name, x in arrays.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise ValueError(
                f"data has the numbers of examples {sizes}: give every modality the same one, of "
                "at least 1"
            )
        absent = {name: (max(sizes.values()), *dim) for name, dim in dims.items()}
        return {name: arrays.get(name, jnp.zeros(absent[name], jnp.float32)) for name in dims}

    def _floats(self, name: str, x: jax.Array, dim: tuple[int, ...]) -> jax.Array:
        is_categorical = self.config["decoders_dist"][name] == "categorical"
        is_classes = is_categorical and jnp.issubdtype(x.dtype, jnp.integer)
        is_bytes = not is_categorical and x.dtype == jnp.uint8
        if not (is_classes or is_bytes or jnp.issubdtype(x.dtype, jnp.floating)):
            raise ValueError(
                f"data[{name!r}] has dtype {x.dtype}, expected a floating type, or uint8 for "
                "intensities from 0 to 255: convert it"
            )
        expected = dim[:-1] if is_classes else dim
        if x.ndim == 0 or x.shape[1:] != expected:
            raise ValueError(
                f"data[{name!r}] has shape {x.shape}, expected {('b', *expected)}, channels last"
            )
        if is_classes:
            return jax.nn.one_hot(x, dim[-1], dtype=jnp.float32)
        return jnp.float32(x) / 255 if is_bytes else jnp.float32(x)

    def _mask(self, data: Any, mask: Any, num_examples: int) -> dict[str, Any]:
        """Every modality's mask, checked."""
        observed = dict.fromkeys(data, np.ones(num_examples, bool))
        if mask is not None:
            _check_names("mask", mask, list(data))
            missing = [name for name in data if name not in mask]
            if missing:
                raise ValueError(f"mask lacks {missing}, which data has: give each a mask")
            observed = {name: jnp.asarray(given) for name, given in mask.items()}
        for name, given in observed.items():
            if given.dtype != bool or given.shape != (num_examples,):
                raise ValueError(
                    f"mask[{name!r}] is {given.dtype}{list(given.shape)}, expected "
                    f"bool[{num_examples}], True where observed"
                )
        if not any(isinstance(given, Tracer) for given in observed.values()):
            without = np.flatnonzero(~np.any([*observed.values()], axis=0)).tolist()
            if without:
                raise ValueError(f"the examples {without[:10]} observe nothing: leave them out")
        absent = np.zeros(num_examples, bool)
        return {name: observed.get(name, absent) for name in self.config["input_dims"]}


def load_exported(path: str | os.PathLike) -> Exported:
    """Read a folder that ``mm.export`` wrote, after checking that its files are as written.

    JAX can run programs that an older JAX exported, for at least six months.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: naming the file that is not as written, or is of another format.

    >>> program = mm.load_exported(mm.export(model, folder / "exported", platforms=["cpu"]))
    >>> program.predict({"sound": data["sound"]}, return_mean=True)["text"].shape
    (5, 1, 2, 3)
    """
    folder = Path(path)
    manifest = _manifest(folder / MANIFEST)
    contents = {
        name: _checked(folder / name, digest) for name, digest in manifest["sha256"].items()
    }
    with np.load(io.BytesIO(contents[PARAMS]), allow_pickle=False) as stored:
        # Files know no bfloat16: it is stored as integers, and viewed as what it is.
        params = {
            name: jnp.asarray(stored[name].view(jnp.dtype(dtype)))
            for name, dtype in manifest["params"].items()
        }
    programs = {
        name: jax.export.deserialize(bytearray(contents[program["file"]]))
        for name, program in manifest["programs"].items()
    }
    return Exported(manifest, params, programs)


def _manifest(file: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is damaged: copy the folder again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(
            f"{file} is not of format {FORMAT}: read it with the exported.py of the version that "
            "wrote it, or export again"
        )
    return manifest


def _checked(file: Path, digest: str) -> bytes:
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{file} is not what was exported: copy the folder again")
    return content


def _check_names(field: str, given: Any, known: list[str]) -> None:
    if not isinstance(given, Mapping):
        raise ValueError(f"{field} is a {type(given).__name__}: give a dict by modality name")
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{field} has the unknown modalities {unknown}: known are {known}")


def _key_bits(key: Any) -> jax.Array:
    if key is None:
        raise ValueError("key is None: give jax.random.key(...), or return_mean=True")
    expected = jax.eval_shape(lambda: jax.random.key(0, impl=KEY_IMPL))
    if getattr(key, "dtype", None) != expected.dtype or key.shape != ():
        raise ValueError(
            f"key is {key!r}: give one key, jax.random.key(..., impl={KEY_IMPL!r}), JAX's default"
        )
    return jax.random.key_data(key)
