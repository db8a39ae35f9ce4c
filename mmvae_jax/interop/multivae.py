"""Trained MMVAEs of MultiVae's, parameter by parameter."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmvae_jax.config import MMVAEConfig
from mmvae_jax.interop.choice import Clues, choose
from mmvae_jax.interop.files import CONFIG, SOURCE, arrays, pickled_names, read_params
from mmvae_jax.interop.layers import fill
from mmvae_jax.interop.networks import Sizes
from mmvae_jax.interop.settings import Settings, convert_settings
from mmvae_jax.model import MMVAE
from mmvae_jax.saving.run_config import read_config

PRIOR = "prior"

Networks = Mapping[str, str | nnx.Module]
Params = Mapping[str, np.ndarray]


def load_multivae(
    source: str | os.PathLike | Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
    *,
    encoders: Networks | None = None,
    decoders: Networks | None = None,
) -> MMVAE:
    """Make an MMVAE of one that MultiVae 1.0 trained, with its parameters in the networks here.

        model = load_multivae("my_model")
        model = load_multivae("my_model", decoders={"text": "CubTextDecoderMLP"})
        model = load_multivae(theirs.state_dict(), {"input_dims": {"image": (1, 28, 28)}})

    On the same noise it has MultiVae's posteriors, log weights and reconstructions, to rounding.
    Channels are last: an image that was ``(1, 28, 28)`` is ``(28, 28, 1)`` in the config and in
    batches. Files are read as data: JSON, arrays (``model.pt`` by PyTorch with ``weights_only``),
    and of the pickled networks the names of their classes, without running a pickle.

    Args:
      source: the folder that MultiVae's ``model.save`` wrote (``model_config.json`` and
        ``model.pt``, or in its place ``model.npz`` with the same arrays), or a state dict of
        arrays or PyTorch's tensors.
      config: fields of MultiVae's config, by its names and with its order of channels; needed
        with a state dict, and in place of the folder's where there is one.
      encoders: for modalities with a network of their own, the name of its class in MultiVae, or
        an NNX module that holds its parameters. Left out, the class is the one of those known
        whose parameters fit and whose name the pickled networks hold.
      decoders: the same of decoders.

    Raises:
      FileNotFoundError: if a file is missing.
      ImportError: if PyTorch is missing for ``model.pt``.
      ValueError: for settings, networks and parameters that cannot be converted exactly, naming
        what is wrong and the fix.
    """
    folder, fields, state = _read(source, config)
    settings = convert_settings(fields)
    parts = _parts(arrays(state), settings.config)
    model = MMVAE(
        settings.config,
        _networks("encoders", parts, settings, encoders, folder),
        _networks("decoders", parts, settings, decoders, folder),
        rngs=nnx.Rngs(0),
    )
    model.prior_log_var.set_value(jnp.asarray(_prior_log_var(parts[PRIOR], settings.config)))
    return model


def _read(
    source: str | os.PathLike | Mapping[str, Any], config: Mapping[str, Any] | None
) -> tuple[Path | None, dict[str, Any], Mapping[str, Any]]:
    """The folder if there is one, the fields of MultiVae's config and the state dict."""
    if not isinstance(source, Mapping):
        folder = Path(source)
        fields = read_config(folder, CONFIG, source=SOURCE)
        return folder, {**fields, **(config or {})}, read_params(folder)
    if config is None:
        raise ValueError(
            "config is None, but a state dict says nothing of the settings: give the fields of "
            "MultiVae's model_config.json"
        )
    return None, dict(config), source


def _parts(params: Params, config: MMVAEConfig) -> dict[str, dict[str, np.ndarray]]:
    """The parameters of each network, ``encoders.image``, and of the prior, by their names there.

    Raises:
      ValueError: if there are others.
    """
    paths = [f"{side}.{name}" for side in ("encoders", "decoders") for name in config.modalities]
    parts = {path: {} for path in (*paths, PRIOR)}
    for name, x in params.items():
        side, _, rest = name.partition(".")
        modality, _, own = rest.partition(".")
        path = f"{side}.{modality}" if rest else PRIOR
        if path not in parts:
            raise ValueError(
                f"the parameters hold {name!r}, but input_dims has the modalities "
                f"{list(config.modalities)}: give a model that MultiVae 1.0 saved, and all of its "
                "modalities"
            )
        parts[path][own or name] = x
    return parts


def _networks(
    side: str,
    parts: Mapping[str, Params],
    settings: Settings,
    given: Networks | None,
    folder: Path | None,
) -> dict[str, Any]:
    """Networks with their parameters, of all modalities; those given as modules as they are."""
    config, is_custom = settings.config, side in settings.custom
    pickled = pickled_names(folder, side) if folder and is_custom else None
    networks: dict[str, Any] = dict(given or {})
    for name, dim in config.input_dims.items():
        if isinstance(networks.get(name), nnx.Module):
            continue
        params = parts[f"{side}.{name}"]
        clues = Clues(side, name, networks.get(name), is_custom, pickled)
        sizes = Sizes(dim, settings.images.get(name), config.latent_dim)
        network = choose(clues, {own: x.shape for own, x in params.items()}, sizes)
        fill(network.layers, params)
        networks[name] = network.module
    return networks


def _prior_log_var(params: Params, config: MMVAEConfig) -> np.ndarray:
    """The prior's raw scale ``[d]``; its location has to be 0, where it is here."""
    shape = (1, config.latent_dim)
    found = {name: x.shape for name, x in params.items()}
    if found != {"prior_mean": shape, "prior_log_var": shape}:
        raise ValueError(
            f"beside the networks the parameters hold {found}, expected prior_mean and "
            f"prior_log_var of shape {shape}: give a model that MultiVae 1.0 saved, and its "
            "latent_dim"
        )
    if params["prior_mean"].any():
        raise ValueError(
            f"prior_mean is {params['prior_mean'].tolist()}: a prior whose location is not 0 is "
            "not converted; MultiVae 1.0 trains none"
        )
    return params["prior_log_var"][0]
