"""Import of models that MultiVae trained, parameter by parameter."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from mmvae_jax.config import MMVAEConfig
from mmvae_jax.inputs.paths import as_path
from mmvae_jax.interop.files import CONFIG, SOURCE, as_arrays, read_params
from mmvae_jax.interop.layers import fill
from mmvae_jax.interop.networks import NETWORKS, Sizes, known_networks
from mmvae_jax.interop.priors import set_priors
from mmvae_jax.interop.settings import Settings, convert_settings
from mmvae_jax.model import MMVAE
from mmvae_jax.saving.files import read_json

PRIORS = "priors"

Networks = Mapping[str, str | nnx.Module]
Params = Mapping[str, np.ndarray]


def load_multivae(
    source: str | os.PathLike | Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
    *,
    encoders: Networks | None = None,
    decoders: Networks | None = None,
) -> MMVAE:
    """Loads an MMVAE, MMVAE+ or CMVAE that MultiVae 1.0 trained, with its parameters.

        model = load_multivae("my_model")
        model = load_multivae("my_model", encoders={"m0": "EncoderConvMMNIST"})
        model = load_multivae(theirs.state_dict(), {"input_dims": {"image": (1, 28, 28)}})

    On the same noise it has MultiVae's posteriors, log weights and reconstructions, to rounding.
    Channels are last: an image that was ``(1, 28, 28)`` is ``(28, 28, 1)`` in the config and in
    batches. Files are read as data, JSON and arrays (``model.pt`` by PyTorch with
    ``weights_only``); MultiVae's pickled networks are not read.

    Args:
      source: the folder that MultiVae's ``model.save`` wrote (``model_config.json`` and
        ``model.pt``, or in its place ``model.npz`` with the same arrays), or a state dict of
        arrays or PyTorch tensors.
      config: fields of MultiVae's config, by its names and with its order of channels. Needed
        with a state dict; with a folder they replace the fields of its file. Without ``"name"``
        the names of the parameters identify the model.
      encoders: for a model that was given encoders, the name of each one's class in MultiVae
        (a key of ``mmvae_jax.interop.networks.NETWORKS["encoders"]``), or an NNX module that
        holds its parameters. Other models have MultiVae's default, ``Encoder_VAE_MLP``, or
        ``Encoder_VAE_MLP_Style`` with private latents.
      decoders: the classes of decoders, likewise. The default is ``Decoder_AE_MLP``.

    Raises:
      FileNotFoundError: if a file is missing.
      ImportError: if PyTorch is missing for ``model.pt``.
      ValueError: for settings, networks and parameters that cannot be converted exactly, naming
        the value and the fix.
    """
    fields, state = _read(source, config)
    params = as_arrays(state)
    settings = convert_settings(fields, params)
    parts = _parts(params, settings.config)
    networks = {
        side: _networks(side, parts, settings, dict(given or {}))
        for side, given in (("encoders", encoders), ("decoders", decoders))
    }
    model = MMVAE(settings.config, **networks, rngs=nnx.Rngs(0))
    set_priors(model, settings.name, parts[PRIORS])
    return model


def _read(
    source: str | os.PathLike | Mapping[str, Any], config: Mapping[str, Any] | None
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Returns the fields of MultiVae's config and the state dict."""
    if not isinstance(source, Mapping):
        folder = as_path(source, "source")
        fields = read_json(folder / CONFIG, source=SOURCE)
        return {**fields, **(config or {})}, read_params(folder)
    if config is None:
        raise ValueError(
            "config is None, but a state dict holds no settings: give the fields of MultiVae's "
            "model_config.json"
        )
    return dict(config), source


def _parts(params: Params, config: MMVAEConfig) -> dict[str, dict[str, np.ndarray]]:
    """Returns the parameters of each network, as in ``encoders.image``, and all others.

    Raises:
      ValueError: if there are networks of other modalities.
    """
    paths = [f"{side}.{name}" for side in NETWORKS for name in config.modalities]
    parts = {path: {} for path in (*paths, PRIORS)}
    for name, x in params.items():
        side, _, rest = name.partition(".")
        if side not in NETWORKS:
            parts[PRIORS][name] = x
            continue
        modality, _, inner = rest.partition(".")
        path = f"{side}.{modality}"
        if path not in parts:
            raise ValueError(
                f"the parameters hold {name!r}, but input_dims has the modalities "
                f"{list(config.modalities)}: give a model that MultiVae 1.0 saved, and all of its "
                "modalities"
            )
        parts[path][inner] = x
    return parts


def _networks(
    side: str, parts: Mapping[str, Params], settings: Settings, given: dict[str, Any]
) -> dict[str, Any]:
    """Returns the networks of all modalities with their parameters; given modules as they are."""
    config = settings.config
    known = known_networks(side, has_private=config.axes.num_private > 0)
    if side not in settings.custom:
        given = dict.fromkeys(config.modalities, next(iter(known))) | given
    for name, dim in config.input_dims.items():
        kind = given.get(name)
        if isinstance(kind, nnx.Module):
            continue
        is_kind = f"{side}[{name!r}] is {kind!r}"
        choices = (
            f"the class that MultiVae was given, {side}={{{name!r}: class}}, one of {list(known)}; "
            "or an NNX module that holds the parameters"
        )
        if kind is None or kind not in known:
            raise ValueError(f"{is_kind}: give {choices}")
        params = parts[f"{side}.{name}"]
        private = config.network_dim(name) - config.latent_dim
        sizes = Sizes(dim, settings.images.get(name), config.latent_dim, private)
        network = known[kind](sizes, frozenset(params))
        if found := network.differences(sizes, {path: x.shape for path, x in params.items()}):
            raise ValueError(
                f"{is_kind}, but its parameters have {len(found)} differences, such as "
                f"{'; '.join(found[:3])}: give {choices}"
            )
        fill(network.layers, params)
        given[name] = network.module
    return given
