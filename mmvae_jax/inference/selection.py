"""Selections of modalities: all of them, one name or several names."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool

from mmvae_jax.config import MMVAEConfig

Selection = str | Sequence[str]


def modality_names(field: str, selection: Selection, config: MMVAEConfig) -> tuple[str, ...]:
    """Returns the modalities that "all", a name or several names select, in the config's order."""
    if isinstance(selection, str):
        names = config.modalities if selection == "all" else (selection,)
    else:
        names = tuple(selection)
    if not names or any(name not in config.modalities for name in names):
        given = repr(selection) if isinstance(selection, str) else list(names)
        raise ValueError(
            f"{field} is {given}: give 'all', or names among {list(config.modalities)}"
        )
    return tuple(name for name in config.modalities if name in names)


def modality_mask(field: str, selection: Selection, config: MMVAEConfig) -> Bool[Array, "m 1"]:
    """Returns True for the selected modalities, in the config's order."""
    names = modality_names(field, selection, config)
    return jnp.array([[name in names] for name in config.modalities])


def check_available(available: Bool[Array, "m b"], cond_mod: Selection) -> None:
    """Raises ValueError outside jit if an example has nothing to condition on."""
    if isinstance(available, Tracer):
        return
    without = jnp.flatnonzero(~available.any(0)).tolist()
    if without:
        raise ValueError(
            f"cond_mod is {cond_mod!r}, but the examples {without[:10]} have none of these "
            "modalities: leave them out, or condition on more modalities"
        )
