"""The files of a MultiVae model, read as data: nothing in them is run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

CONFIG, TORCH, NUMPY = "model_config.json", "model.pt", "model.npz"
SOURCE = "the folder that MultiVae's model.save wrote"


def read_params(folder: Path) -> Mapping[str, Any]:
    """Reads the state dict of a folder: ``model.pt``, or ``model.npz`` with the same names.

    Raises:
      FileNotFoundError: if there is neither.
      ImportError: if PyTorch is missing for ``model.pt``.
    """
    file = folder / TORCH
    if file.is_file():
        return _read_torch(file)
    if (folder / NUMPY).is_file():
        with np.load(folder / NUMPY, allow_pickle=False) as stored:
            return dict(stored)
    raise FileNotFoundError(f"{folder} holds neither {TORCH} nor {NUMPY}: give {SOURCE}")


def as_arrays(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts a state dict of PyTorch tensors or arrays to NumPy arrays in single precision."""
    state = params.get("model_state_dict", params)
    return {
        name: np.asarray(x.detach().cpu().float() if hasattr(x, "detach") else x, np.float32)
        for name, x in state.items()
    }


def _read_torch(file: Path) -> Mapping[str, Any]:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"{file.name} needs PyTorch: pip install 'mmvae_jax[torch]', or, where PyTorch is, "
            f"write {NUMPY} in its place: np.savez(file, **model.state_dict())"
        ) from error
    return torch.load(file, map_location="cpu", weights_only=True)
