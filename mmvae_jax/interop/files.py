"""The files of a model of MultiVae's, of which none is run."""

import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

CONFIG, TORCH, NUMPY = "model_config.json", "model.pt", "model.npz"
SOURCE = "the folder that MultiVae's model.save wrote"


def read_params(folder: Path) -> Mapping[str, Any]:
    """The folder's state dict: ``model.pt``, or its arrays under the same names in ``model.npz``.

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


def arrays(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The state dict in single precision, from tensors of PyTorch's or arrays."""
    state = params.get("model_state_dict", params)
    return {
        name: np.asarray(x.detach().cpu().float() if hasattr(x, "detach") else x, np.float32)
        for name, x in state.items()
    }


def pickled_names(folder: Path, side: str) -> frozenset[str] | None:
    """Every string in ``encoders.pkl`` or ``decoders.pkl``, names of classes among them.

    The pickle is read as text and never run. None if there is no such file.
    """
    file = folder / f"{side}.pkl"
    if not file.is_file():
        return None
    try:
        arguments = [argument for _, argument, _ in pickletools.genops(file.read_bytes())]
    except ValueError as error:
        raise ValueError(
            f"{file} cannot be read: {error}; put the file back, or remove it and name the "
            f"classes, {side}={{modality: class}}"
        ) from error
    return frozenset(argument for argument in arguments if isinstance(argument, str))


def _read_torch(file: Path) -> Mapping[str, Any]:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"{file.name} is PyTorch's: pip install 'mmvae_jax[torch]', or save its arrays as "
            f"{NUMPY} in its place where PyTorch is: np.savez(file, **model.state_dict())"
        ) from error
    return torch.load(file, map_location="cpu", weights_only=True)
