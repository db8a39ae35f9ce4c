"""The InceptionV3 features of the Frechet inception distance, from a file of its weights.

The network of Heusel et al. (2017), of which pytorch-fid publishes the weights as
``pt_inception-2015-12-05-6726825d.pth``. No weights come with this package.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from mmvae_jax.metrics.inception_layers import LAYERS, apply_layers, convolutions

#: Height and width that images are resized to.
SIZE = 299
#: What batch normalisation adds to variances.
EPSILON = 1e-3


@struct.dataclass
class Inception:
    """The network with its weights; make one with ``load_inception``.

    Attributes:
      params: kernel ``[h w i o]`` and bias ``[o]`` of every convolution, normalisation included.
    """

    params: dict[str, tuple[Float[Array, "h w i o"], Float[Array, " o"]]]

    def __call__(self, images: Float[Array | np.ndarray, "n h w c"]) -> Float[Array, "n f"]:
        """Returns the 2048 features of each image, the means of its last feature maps.

        Args:
          images: of any size, which are resized to 299 x 299 (bilinear, not smoothed), with
            intensities in 0 to 1; one channel is taken as grey.

        Raises:
          ValueError: if there are neither one nor three channels.
        """
        if images.shape[-1] not in (1, 3):
            raise ValueError(f"images have {images.shape[-1]} channels: give 1 (grey) or 3 (RGB)")
        return _features(self.params, jnp.asarray(images))


def load_inception(path: str | os.PathLike) -> Inception:
    """Returns the network with the weights of a file.

    Args:
      path: pytorch-fid's ``.pth`` file, read with PyTorch if it is installed; or its arrays under
        the same names in an ``.npz`` file, as ``np.savez(path, **{name: x.numpy() ...})`` writes.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: if PyTorch is missing for a ``.pth`` file.
      ValueError: if a name is missing from the file or an array has another shape.

    >>> features = load_inception("pt_inception-2015-12-05.pth")  # doctest: +SKIP
    """
    weights, shapes = _read(Path(path)), checkpoint_shapes()
    wrong = [
        f"{name}: {getattr(weights.get(name), 'shape', 'missing')}, expected {shape}"
        for name, shape in shapes.items()
        if name not in weights or weights[name].shape != shape
    ]
    if wrong:
        raise ValueError(
            f"{path} does not hold the weights of pytorch-fid's InceptionV3; {len(wrong)} arrays "
            f"differ, such as {'; '.join(wrong[:3])}"
        )
    return Inception({name: _folded(weights, name) for name, _, _ in convolutions()})


def checkpoint_shapes() -> dict[str, tuple[int, ...]]:
    """Returns names and shapes of the arrays that are read from the weights file."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, conv, channels in convolutions():
        shapes[f"{name}.conv.weight"] = (conv.features, channels, *conv.kernel)
        for array in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{array}"] = (conv.features,)
    return shapes


@jax.jit
def _features(params: Mapping[str, Any], images: Array) -> Array:
    size = (len(images), SIZE, SIZE, images.shape[-1])
    x = jax.image.resize(images, size, "bilinear", antialias=False)
    x = jnp.broadcast_to(2 * x - 1, (*size[:3], 3))
    return apply_layers(LAYERS, params, x).mean((1, 2))


def _folded(weights: Mapping[str, np.ndarray], name: str) -> tuple[Array, Array]:
    """Kernel and bias of a convolution and the normalisation after it, by fixed moments."""
    gain, shift, mean, variance = (
        weights[f"{name}.bn.{array}"].astype(np.float64)
        for array in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / np.sqrt(variance + EPSILON)
    kernel = weights[f"{name}.conv.weight"].transpose(2, 3, 1, 0) * scale
    return jnp.asarray(kernel, jnp.float32), jnp.asarray(shift - mean * scale, jnp.float32)


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"{path.name} is PyTorch's: pip install torch, or convert it to .npz where that is"
        ) from error
    weights = torch.load(path, map_location="cpu", weights_only=True)
    return {name: x.numpy() for name, x in weights.items()}
