"""Conversion of PyTorch's parameters, layer by layer."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmvae_jax.networks.cpu_conv import Conv, ConvTranspose

Shape = tuple[int, ...]

# The axes of a kernel here, in PyTorch's order. Here they are [in, out], or [height, width, in,
# out]; there [out, in], [out, in, height, width] or, transposed, [in, out, height, width].
TORCH_AXES: Mapping[type[nnx.Module], tuple[int, ...]] = {
    nnx.Linear: (1, 0),
    Conv: (3, 2, 0, 1),
    ConvTranspose: (2, 3, 0, 1),
}


class Layer(NamedTuple):
    """The layer that holds the parameters of a PyTorch layer.

    Attributes:
      target: layer of this package.
      reads: (channels, height, width) of the feature map that a dense layer reads flattened.
      writes: (channels, height, width) of the feature map that a dense layer writes flattened.
      num_outputs: number of outputs of the PyTorch layer, None for those of the target. Several
        PyTorch layers on one input may have one target, which has their outputs in their order.
    """

    target: nnx.Linear | Conv | ConvTranspose
    reads: Shape | None = None
    writes: Shape | None = None
    num_outputs: int | None = None


def torch_shapes(layers: Mapping[str, Layer]) -> dict[str, Shape]:
    """Returns names and shapes of PyTorch's parameters for these layers."""
    shapes = {}
    for path, (target, _, _, num_outputs) in layers.items():
        *inner, num = target.kernel.shape
        num = num if num_outputs is None else num_outputs
        kernel = (*inner, num)
        shapes[f"{path}.weight"] = tuple(kernel[axis] for axis in TORCH_AXES[type(target)])
        if target.bias is not None:
            shapes[f"{path}.bias"] = (num,)
    return shapes


def shape_differences(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> list[str]:
    """Returns a line for each parameter that is missing, of another shape, or not expected."""
    return [
        f"{name} is {found.get(name, 'missing')}, expected {expected.get(name, 'none')}"
        for name in {**expected, **found}
        if found.get(name) != expected.get(name)
    ]


def fill(layers: Mapping[str, Layer], params: Mapping[str, np.ndarray]) -> None:
    """Sets the layers' parameters to PyTorch's, of the names and shapes of ``torch_shapes``."""
    paths_of = {}
    for path, layer in layers.items():
        paths_of.setdefault(id(layer.target), []).append(path)
    for paths in paths_of.values():
        target = layers[paths[0]].target
        kernels = [_kernel(layers[path], params[f"{path}.weight"]) for path in paths]
        target.kernel.set_value(jnp.asarray(np.concatenate(kernels, axis=-1)))
        if target.bias is not None:
            biases = [
                _channels_last(params[f"{path}.bias"], 0, layers[path].writes) for path in paths
            ]
            target.bias.set_value(jnp.asarray(np.concatenate(biases)))


def _kernel(layer: Layer, weight: np.ndarray) -> np.ndarray:
    """Returns the kernel of a layer from PyTorch's weight."""
    kernel = weight.transpose(np.argsort(TORCH_AXES[type(layer.target)]))
    if isinstance(layer.target, ConvTranspose):
        # PyTorch adds the kernel at every input, y[s i + a] += x[i] w[a]. With s - 1 zeros between
        # the inputs that is y[t] = sum_a x[t - a] w[a], where layers here compute
        # sum_a x[t + a] w[a].
        kernel = kernel[::-1, ::-1]
    return _channels_last(_channels_last(kernel, 0, layer.reads), 1, layer.writes)


def _channels_last(x: np.ndarray, axis: int, image: Shape | None) -> np.ndarray:
    """Reorders an axis that counts the pixels of (channels, height, width): channels fastest."""
    if image is None:
        return x
    order = np.arange(math.prod(image)).reshape(image).transpose(1, 2, 0)
    return x.take(order.ravel(), axis)
