"""InceptionV3 features of the Frechet inception distance, computed by pytorch-fid."""

import os
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
from jaxtyping import Array, Float

#: Images that go through the network at a time, each enlarged to 299 x 299 pixels.
CHUNK = 64


def load_inception(
    path: str | os.PathLike,
) -> Callable[[Float[Array | np.ndarray, "n h w c"]], Float[np.ndarray, "n f"]]:
    """Returns a function from images to the 2048 features of the FID (Heusel et al. 2017).

    The function takes grey (``c = 1``) or RGB images of any size with intensities in 0 to 1. Its
    features suit ``mean_covariance`` and ``frechet_distance``. It needs the extra ``fid``.

    Args:
      path: weights file that pytorch-fid publishes, ``pt_inception-2015-12-05-6726825d.pth``.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: if pytorch-fid is missing.
      ValueError: if the file holds other weights.

    >>> features = load_inception("pt_inception-2015-12-05-6726825d.pth")  # doctest: +SKIP
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"path is {path}: give the weights file that pytorch-fid publishes")
    try:
        import torch  # pyright: ignore[reportMissingImports]
        from pytorch_fid import inception  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("InceptionV3 is pytorch-fid's: pip install 'mmvae_jax[fid]'") from error
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        # pytorch-fid takes no file: it loads the weights from its address, through this function.
        with mock.patch.object(inception, "load_state_dict_from_url", return_value=weights):
            network = inception.InceptionV3().eval()
    except RuntimeError as error:
        raise ValueError(
            f"path is {path}: give the weights file that pytorch-fid publishes"
        ) from error

    def features(images: Float[Array | np.ndarray, "n h w c"]) -> Float[np.ndarray, "n f"]:
        n, height, width, channels = images.shape
        if channels not in (1, 3):
            raise ValueError(f"images has {channels} channels: give 1 (grey) or 3 (RGB)")
        x = np.moveaxis(np.asarray(images, np.float32), 3, 1)
        x = np.broadcast_to(x, (n, 3, height, width))
        with torch.inference_mode():
            parts = [
                np.asarray(network(torch.from_numpy(x[start : start + CHUNK].copy()))[0])
                for start in range(0, n, CHUNK)
            ]
        return np.concatenate(parts)[:, :, 0, 0]

    return features
