"""Calls of networks: their random numbers, and checks of the modules and of their outputs."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PRNGKeyArray

from mmvae_jax.checks import check_modalities

#: Attributes that ``model.train()`` and ``model.eval()`` set in every module.
FLAGS = ("deterministic", "use_running_average")


def random_streams(network: Any, key: PRNGKeyArray | None, number: int) -> dict[str, Any]:
    """Returns the keyword ``rngs`` for a network whose call takes it, else no keywords."""
    if key is None or "rngs" not in inspect.signature(network.__call__).parameters:
        return {}
    return {"rngs": nnx.Rngs(jax.random.fold_in(key, number))}


def draws_numbers(networks: nnx.Module) -> bool:
    """Returns True if any of the networks may draw random numbers when called."""
    modules = [module for _, module in nnx.iter_graph(networks)]
    return any(
        isinstance(module, nnx.RngStream)
        or (isinstance(module, nnx.Dropout) and not module.deterministic)
        for module in modules
    )


def has_convolutions(networks: nnx.Module) -> bool:
    """Returns True if any of the networks has kernels with more axes than a matrix."""
    return any(jnp.ndim(x) > 2 for x in jax.tree.leaves(nnx.state(networks, nnx.Param)))


def reseeded(model: nnx.Module, key: PRNGKeyArray | None) -> Any:
    """Returns a copy whose random streams start from the key (unchanged without one)."""
    copy = nnx.clone(model)
    if key is not None:
        streams = [s for _, s in nnx.iter_graph(copy) if isinstance(s, nnx.RngStream)]
        for index, stream in enumerate(streams):
            stream.key.set_value(jax.random.fold_in(key, index))
            stream.count.set_value(jnp.zeros((), jnp.uint32))
    return copy


def check_attribute_names(field: str, names: Iterable[str]) -> None:
    """Raises ValueError for a modality name that a Flax module cannot hold as an attribute."""
    for name in names:
        if name in FLAGS or name.startswith(("__", "_pytree__")):
            raise ValueError(
                f"{field} has the modality name {name!r}, an attribute of Flax modules: "
                "give another name"
            )


def check_networks(field: str, networks: Mapping[str, Any], modalities: Iterable[str]) -> None:
    """Checks the names of networks, and that they keep no state from call to call.

    Raises:
      ValueError: naming the network and the state.
    """
    check_modalities(field, networks, modalities)
    for name, network in networks.items():
        for path, value in nnx.iter_graph(network):
            if isinstance(value, nnx.BatchStat | nnx.Cache):
                raise ValueError(
                    f"{field}[{name!r}] keeps the state {'.'.join(map(str, path))!r} "
                    f"({type(value).__name__}) from call to call, which a pure function cannot: "
                    "use LayerNorm or GroupNorm in place of BatchNorm"
                )


def checked_posterior(name: str, output: Any, expected: tuple[Any, int]) -> tuple[Array, Array]:
    """Returns the output of an encoder, a pair of arrays of this shape.

    Raises:
      ValueError: for any other output.
    """
    shapes = [getattr(a, "shape", None) for a in output] if isinstance(output, tuple) else None
    if shapes != [expected, expected]:
        raise ValueError(
            f"encoders[{name!r}] returned {describe(output)}, expected a pair (loc, log_var) "
            f"of shape {expected} each"
        )
    return output


def describe(value: Any) -> str:
    """Returns the shape of an array, or the type of another value."""
    if isinstance(value, tuple | list):
        return f"({', '.join(map(describe, value))})"
    return f"shape {value.shape}" if hasattr(value, "shape") else type(value).__name__
