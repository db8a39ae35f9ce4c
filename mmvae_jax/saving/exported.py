"""Exported models, which run without the code that made them.

This file imports only JAX and NumPy (JAX reads programs with the package flatbuffers): it works
just as well when it is copied into another project.
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
KEY_IMPL = "threefry2x32"  # JAX's default way from keys to numbers, which programs have built in


class Exported:
    """The functions of an exported MMVAE, from ``load_exported``.

    They compute the same as ``mm.encode``, ``mm.decode`` and ``mm.predict``, from the same keys,
    for batches of any size (each size compiles once). Types and shapes are checked. Values are
    not, unlike in ``mm.predict``: NaN, or values that a likelihood cannot have, give latents that
    mean nothing. Under ``jax.jit`` the values of a mask are not checked, either, and an example
    that observes nothing has NaN latents.

    Attributes:
      config: settings of the model, as JSON holds them.
      num_samples: number N of draws per example.
      manifest: everything known about the export, such as versions and platforms.
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
        """Draws latents ``[b, N, d]`` from the mixture of the observed experts.

        Args:
          data: ``{modality: [b, *input_dim]}`` of floats, or of bytes, which stand for intensities
            and are divided by 255; a categorical modality may hold integer classes,
            ``[b, *input_dim[:-1]]``, and one of counts or a custom likelihood integers.
            Modalities left out count as missing, which is how one conditions on some of them.
          mask: ``{modality: bool [b]}``, True where observed; None when all of ``data`` is.
            Placeholder values of missing examples never affect a result.
          key: randomness, a key of ``jax.random.key`` or ``PRNGKey``; not needed for the mean.
          return_mean: True for the mean of the mixture, ``[b, 1, d]``, in place of draws.

        Raises:
          ValueError: naming the modality, the expected value and the given one.
        """
        return self._call("encode", data, mask, key, return_mean)

    @property
    def latent_size(self) -> int:
        """Size of z: the shared latent and all private ones."""
        # Programs that were exported before private latents have no such setting.
        private = self.config.get("modalities_specific_dim", 0)
        if isinstance(private, Mapping):
            return self.config["latent_dim"] + sum(private.values())
        return self.config["latent_dim"] + private * len(self.config["input_dims"])

    def decode(self, z: ArrayLike) -> dict[str, jax.Array]:
        """Decodes latents ``[*n, d]`` into every modality, ``{modality: [*n, *input_dim]}``.

        Raises:
          ValueError: for latents of another size.
        """
        z, dim = jnp.asarray(z, jnp.float32), self.latent_size
        if z.ndim == 0 or z.shape[-1] != dim:
            num = self.config["latent_dim"]
            private = f", and the private latents have {dim - num} axes together"
            raise ValueError(
                f"z has shape {z.shape}, expected (..., {dim}): latent_dim is {num}"
                f"{private if dim > num else ''}"
            )
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
        """Generates every modality from the observed ones, ``{modality: [b, N, *input_dim]}``.

        Arguments and errors are those of ``encode``.
        """
        return self._call("predict", data, mask, key, return_mean)

    def _call(self, name: str, data: Any, mask: Any, key: Any, return_mean: bool) -> Any:
        inputs = self._inputs(data, mask)
        if return_mean:
            name = f"{name}_mean"
        else:
            inputs = (*inputs, _key_bits(key))
        try:
            return self._programs[name](self.params, *inputs)
        except ValueError as error:  # jax.export compares shapes and types with the program's
            error.add_note(
                "args[1] is data, [b, *input_dim] with channels last, in floats or in uint8 for "
                "intensities from 0 to 255; args[2] is mask, bool [b], True where observed."
            )
            raise

    def _inputs(self, data: Any, mask: Any) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Returns data and masks of every modality, zeros and False for those left out."""
        dims = {name: tuple(dim) for name, dim in self.config["input_dims"].items()}
        if not data or not set(data) <= set(dims):
            raise ValueError(
                f"data has the modalities {list(data)}: give at least one of {list(dims)}, and no "
                "others"
            )
        if mask is not None and set(mask) != set(data):
            raise ValueError(f"mask has the modalities {list(mask)}: give those of data, {[*data]}")
        arrays = {name: self._floats(name, jnp.asarray(x)) for name, x in data.items()}
        batch_size = next(iter(arrays.values())).shape[:1]
        masks = dict.fromkeys(data, jnp.ones(batch_size, bool))
        if mask is not None:
            masks = {name: jnp.asarray(x) for name, x in mask.items()}
            for name, x in masks.items():
                if x.shape != batch_size:
                    raise ValueError(
                        f"mask[{name!r}] has shape {x.shape}, expected {batch_size}: give one "
                        "value per example, as exported programs know no missing entries"
                    )
            _check_observed(masks)
        absent = jnp.zeros(batch_size, bool)
        zeros = {name: jnp.zeros((*batch_size, *dim), jnp.float32) for name, dim in dims.items()}
        return zeros | arrays, {name: masks.get(name, absent) for name in dims}

    def _floats(self, name: str, x: jax.Array) -> jax.Array:
        """Converts classes and bytes; leaves types that the program refuses as they are."""
        likelihood, dim = self.config["decoders_dist"][name], self.config["input_dims"][name]
        if likelihood == "categorical":
            if jnp.issubdtype(x.dtype, jnp.integer):
                return jax.nn.one_hot(x, dim[-1], dtype=jnp.float32)
        elif likelihood not in ("normal", "laplace", "bernoulli"):
            return jnp.float32(x)  # numbers of a custom likelihood, and counts
        elif x.dtype == jnp.uint8 and len(dim) == 1:
            raise ValueError(
                f"data[{name!r}] is uint8 of one axis: give x / np.float32(255) for intensities, "
                "and x.astype(np.float32) for numbers"
            )
        elif x.dtype == jnp.uint8:
            return jnp.float32(x) / 255
        return jnp.float32(x) if jnp.issubdtype(x.dtype, jnp.floating) else x


def load_exported(path: str | os.PathLike) -> Exported:
    """Reads a folder that ``mm.export`` wrote, after checking that its files are as written.

    JAX can run programs that an older JAX exported, for at least six months.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: naming the file that is not as written, or has another format.

    >>> program = mm.load_exported(mm.export(model, folder / "exported", platforms=["cpu"]))
    >>> program.predict({"sound": data["sound"]}, return_mean=True)["text"].shape
    (5, 1, 2, 3)
    """
    folder = Path(path).expanduser()
    manifest = _manifest(folder / MANIFEST)
    contents = {
        name: _checked(folder / name, digest) for name, digest in manifest["sha256"].items()
    }
    with np.load(io.BytesIO(contents[PARAMS]), allow_pickle=False) as stored:
        # NumPy's files know no bfloat16: it is stored as integers, and viewed as its own type.
        params = {
            name: jnp.asarray(stored[name].view(jnp.dtype(dtype)))
            for name, dtype in manifest["params"].items()
        }
    programs = {
        name: jax.export.deserialize(bytearray(contents[f"{name}.bin"]))
        for name in manifest["programs"]  # a dict by name in version 0.1.0, a list since
    }
    return Exported(manifest, params, programs)


def _manifest(file: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # neither UTF-8 nor JSON
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
        raise ValueError(f"{file} is not the file that was exported: copy the folder again")
    return content


def _check_observed(masks: Mapping[str, jax.Array]) -> None:
    """Checks that every example observes something, where the values of masks are known."""
    values = [*masks.values()]
    are_known = not any(isinstance(mask, Tracer) for mask in values)
    if are_known and len({mask.shape for mask in values}) == 1:
        without = np.flatnonzero(~np.any(np.asarray(values), axis=0)).tolist()
        if without:
            raise ValueError(f"the examples {without[:10]} observe nothing: leave them out")


def _key_bits(key: Any) -> jax.Array:
    if key is None:
        raise ValueError("key is None: give jax.random.key(...), or return_mean=True")
    raw = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=KEY_IMPL)))
    if isinstance(key, jax.Array | np.ndarray) and (key.dtype, key.shape) == (raw.dtype, raw.shape):
        return jnp.asarray(key)  # a raw key, of jax.random.PRNGKey
    expected = jax.eval_shape(lambda: jax.random.key(0, impl=KEY_IMPL))
    if getattr(key, "dtype", None) != expected.dtype or key.shape != ():
        raise ValueError(
            f"key is {key!r}: give one key, jax.random.key(..., impl={KEY_IMPL!r}), JAX's default"
        )
    return jax.random.key_data(key)
