"""Model cards: what people want to know of a model before they load it, in Markdown."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmvae_jax.config import LOSSES, MMVAEConfig
from mmvae_jax.model import MMVAE

TAGS = ("jax", "flax", "mmvae", "multimodal", "variational-autoencoder")

Rows = Iterator[tuple[Any, ...]]


def model_card(
    model: MMVAE,
    name: str,
    *,
    networks: Mapping[str, Mapping[str, str]],
    metrics: Mapping[str, Any] | None = None,
    license: str | None = None,
) -> str:
    """Markdown for people, under the lines of YAML that the Hugging Face Hub reads.

    Args:
      model: an MMVAE.
      name: what to load it by.
      networks: ``{"encoders": {modality: class}, "decoders": ...}`` of those that whoever loads
        it must give.
      metrics: values by name, which mappings may group.
      license: an identifier, such as ``"apache-2.0"``.
    """
    config = model.config
    sizes = [math.prod(x.shape) for x in jax.tree.leaves(nnx.state(model, nnx.Param))]
    parts = [
        _front_matter(license),
        f"# MMVAE of {', '.join(config.modalities)}",
        "A mixture-of-experts multimodal variational autoencoder "
        f"([Shi et al. 2019](https://arxiv.org/abs/1911.03393)) with {sum(sizes):,} parameters, "
        "made with mmvae_jax.",
        _table(("modality", "shape", "likelihood", "encoder", "decoder"), _modalities(model)),
        _table(("setting", "value"), _settings(config)),
        "## Load it",
        _loading(name, networks),
    ]
    if metrics:
        parts += ["## Metrics", _table(("metric", "value"), _flat(metrics))]
    return "\n\n".join(parts) + "\n"


def class_path(x: Any) -> str:
    """Name of an object's class, with its module."""
    return f"{type(x).__module__}.{type(x).__qualname__}"


def _front_matter(license: str | None) -> str:
    # A string in JSON is one in YAML, whatever it holds.
    told = [] if license is None else [f"license: {json.dumps(license, ensure_ascii=False)}"]
    tags = [f"- {tag}" for tag in TAGS]
    return "\n".join(["---", "library_name: mmvae_jax", *told, "tags:", *tags, "---"])


def _modalities(model: MMVAE) -> Rows:
    config = model.config
    for name, dim in config.input_dims.items():
        likelihood, params = config.likelihood(name)
        told = [likelihood, *(f"{param} {value:g}" for param, value in params.items())]
        networks = (class_path(model.encoders[name]), class_path(model.decoders[name]))
        yield name, " x ".join(map(str, dim)), ", ".join(map(str, told)), *networks


def _settings(config: MMVAEConfig) -> Rows:
    bound, estimator = LOSSES[config.loss]
    yield "latent size", config.latent_dim
    yield "posteriors and prior", config.prior_and_posterior_dist
    yield "prior's scale", "trained" if config.learn_prior else "not trained"
    yield "loss", f"{config.loss} (bound {bound}, gradient {estimator})"
    yield "particles K", config.K
    yield "beta", config.beta
    if config.uses_likelihood_rescaling:
        factors = config.likelihood_factors.items()
        yield "likelihoods times", ", ".join(f"{name} {factor:.6g}" for name, factor in factors)


def _loading(name: str, own: Mapping[str, Mapping[str, str]]) -> str:
    given = {
        field: ", ".join(
            f"{json.dumps(m)}: {kind.rpartition('.')[2]}(...)" for m, kind in kinds.items()
        )
        for field, kinds in own.items()
        if kinds
    }
    arguments = [json.dumps(name), *(f"{field}={{{text}}}" for field, text in given.items())]
    lines = [
        "```python",
        "import jax",
        "import mmvae_jax as mm",
        "",
        f"model = mm.from_pretrained({', '.join(arguments)})",
        "x = mm.generate(model, jax.random.key(0), 16)  # {modality: [16, *shape]}",
        "```",
    ]
    if given:
        lines += [
            "",
            f"In {' and '.join(given)} go new modules of the classes above, made as for training, "
            "with any parameters: those of the model take their places.",
        ]
    return "\n".join(lines)


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Rows:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} / ")
        else:
            yield f"{prefix}{name}", value


def _table(header: tuple[str, ...], rows: Rows) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        value = value.tolist()
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", r"\|").split())
