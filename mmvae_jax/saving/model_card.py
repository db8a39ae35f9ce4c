"""Model cards: a summary of a model in Markdown, to be read before it is loaded."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmvae_jax.likelihood_params import Learned
from mmvae_jax.model import MMVAE

CARD = """\
---
library_name: mmvae_jax
{license}tags:
- jax
- flax
- mmvae
- multimodal
- variational-autoencoder
---

# MMVAE of {modalities}

A mixture-of-experts multimodal variational autoencoder \
([Shi et al. 2019](https://arxiv.org/abs/1911.03393)) with {num_parameters:,} parameters, made \
with mmvae_jax.

{networks}

{settings}

## Load it

```python
import jax
import mmvae_jax as mm

model = mm.from_pretrained({arguments})
x = mm.generate(model, jax.random.key(0), 16)  # {{modality: [16, *shape]}}
```
"""
CUSTOM = """
Give new modules of the classes above, made as for training, with any parameters: the model's \
parameters replace them.
"""

Table = Iterator[tuple[Any, ...]]


def model_card(
    model: MMVAE,
    name: str,
    *,
    networks: Mapping[str, Mapping[str, str]],
    metrics: Mapping[str, Any] | None = None,
    license: str | None = None,
) -> str:
    """Returns the card: Markdown, below the lines of YAML that the Hugging Face Hub reads.

    It is written without huggingface_hub, so that saving does not need it.

    Args:
      model: an MMVAE.
      name: folder or repository to load the model from.
      networks: ``{"encoders": {modality: class}, "decoders": ...}`` of the custom networks, which
        whoever loads the model gives.
      metrics: values by name, in nested mappings if need be.
      license: identifier, such as ``"apache-2.0"``.
    """
    config = model.config
    card = CARD.format(
        # A string in JSON is one in YAML, whatever its characters.
        license="" if license is None else f"license: {json.dumps(license, ensure_ascii=False)}\n",
        modalities=", ".join(config.modalities),
        num_parameters=sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))),
        networks=_table(("modality", "shape", "likelihood", "encoder", "decoder"), _rows_of(model)),
        settings=_table(
            ("setting", "value"),
            ((k, x) for k, x in config.describe().items() if not isinstance(x, Mapping)),
        ),
        arguments=", ".join([json.dumps(name), *_arguments(networks)]),
    )
    if any(networks.values()):
        card += CUSTOM
    if metrics:
        card += f"\n## Metrics\n\n{_table(('metric', 'value'), _flat(metrics))}\n"
    return card


def class_path(x: Any) -> str:
    """Returns the name of an object's class, with its module."""
    return f"{type(x).__module__}.{type(x).__qualname__}"


def _rows_of(model: MMVAE) -> Table:
    """Yields a row for each modality."""
    for name, dim in model.config.input_dims.items():
        likelihood, settings = model.config.likelihood(name)
        params = {p: x for p, x in model.likelihood_params(name).items() if x is not None}
        described = [str(likelihood), *(_describe(*param, settings) for param in params.items())]
        networks = (class_path(model.encoders[name]), class_path(model.decoders[name]))
        yield name, " x ".join(map(str, dim)), ", ".join(described), *networks


def _describe(param: str, value: Any, settings: Mapping[str, Any]) -> str:
    """Returns the value of a likelihood's parameter, or the range of the values, in words."""
    values = np.asarray(value)
    text = f"{values.min():.6g}"
    if values.size > 1:
        text += f" to {values.max():.6g}"
    return f"{param} {text}{' (trained)' * isinstance(settings[param], Learned)}"


def _arguments(networks: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yields the arguments of ``from_pretrained`` for custom networks."""
    for field, kinds in networks.items():
        if kinds:
            classes = {m: kind.rpartition(".")[2] for m, kind in kinds.items()}
            modules = ", ".join(f"{json.dumps(m)}: {kind}(...)" for m, kind in classes.items())
            yield f"{field}={{{modules}}}"


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Table:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} / ")
        else:
            yield f"{prefix}{name}", value


def _table(header: tuple[str, ...], rows: Table) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        value = value.tolist()
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", r"\|").split())
