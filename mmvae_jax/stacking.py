"""Networks of one architecture, run as one over stacked parameters.

What is compiled then does not grow with their number. The parameters that users and checkpoints
see stay one set per modality: they are stacked on the way into a computation, and differentiation
takes their gradients apart again.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PyTree


class Group(NamedTuple):
    """Networks that differ in nothing but their parameters; static.

    Attributes:
      names: their modalities.
      graphdef: what they have in common.
    """

    names: tuple[str, ...]
    graphdef: nnx.GraphDef


class Stacked(NamedTuple):
    """Parameters and other variables of each group: ``[names ...]``, or as they are of one name."""

    params: tuple[PyTree, ...]
    rest: tuple[PyTree, ...]


def stack(
    networks: Mapping[str, nnx.Module], traits: Mapping[str, Any], style: str
) -> tuple[tuple[Group, ...], Stacked]:
    """Group the networks that can run as one.

    Args:
      networks: by modality.
      traits: what else must be equal, by modality (of ``traits`` alone those that run).
      style: "separate" makes a group of each. Networks with random streams never share one: their
        keys cannot be stacked without being used.
    """
    found: list[tuple[Any, list[str], list[PyTree], list[PyTree]]] = []
    for name in traits:
        graphdef, params, rest = nnx.split(networks[name], nnx.Param, ...)
        shapes = jax.tree.map(lambda a: (a.shape, a.dtype), (params, rest))
        kind = (graphdef, shapes, traits[name])
        is_single = style == "separate" or any(map(_is_key, jax.tree.leaves(rest)))
        same = [group for group in found if group[0] == kind and not is_single]
        if not same:
            found.append((kind, [], [], []))
        _, names, all_params, all_rest = (same or found)[-1]
        names.append(name)
        all_params.append(params)
        all_rest.append(rest)
    groups = tuple(Group(tuple(names), kind[0]) for kind, names, _, _ in found)
    stacked = Stacked(*(tuple(_stacked(trees[i]) for trees in found) for i in (2, 3)))
    return groups, stacked


def run(
    groups: tuple[Group, ...],
    stacked: Stacked,
    function: Callable[..., PyTree],
    inputs: Mapping[str, PyTree],
    style: str,
) -> dict[str, PyTree]:
    """Call ``function(name, network, input)`` for every network, one group at a time.

    Args:
      groups: of ``stack``.
      stacked: of ``stack``.
      function: what to do with a network; ``name`` is that of the first of its group.
      inputs: pytrees of arrays by modality, alike within a group.
      style: "scan" or "vmap" over a group, resolved.

    Returns:
      What the function returned, by modality.
    """
    outputs = {}
    for group, params, rest in zip(groups, *stacked, strict=True):

        def one(args, group=group):
            params, rest, given = args
            network = nnx.merge(group.graphdef, params, rest, copy=True)
            return function(group.names[0], network, given)

        every = (params, rest, _stacked([inputs[name] for name in group.names]))
        if len(group.names) == 1:
            outputs[group.names[0]] = one(every)
            continue
        output = jax.vmap(one)(every) if style == "vmap" else jax.lax.map(one, every)
        for index, name in enumerate(group.names):
            outputs[name] = jax.tree.map(lambda a, index=index: a[index], output)
    return outputs


def _stacked(trees: list[PyTree]) -> PyTree:
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _is_key(a: Array) -> bool:
    return jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
