"""Which of MultiVae's networks a modality has."""

from collections.abc import Mapping
from typing import NamedTuple

from mmvae_jax.interop.layers import Shape, torch_shapes
from mmvae_jax.interop.networks import DEFAULTS, NETWORKS, REFUSED, Network, Sizes

Shapes = Mapping[str, Shape]


class Clues(NamedTuple):
    """What is known of a modality's network, beside its parameters.

    Attributes:
      side: ``encoders`` or ``decoders``.
      modality: its name.
      named: the class that the caller names.
      custom: whether MultiVae was given networks, of which the default may be one.
      pickled: strings in the file of these networks, None without one.
    """

    side: str
    modality: str
    named: str | None
    custom: bool
    pickled: frozenset[str] | None


def choose(clues: Clues, shapes: Shapes, sizes: Sizes) -> Network:
    """The one known network that the clues allow and whose parameters have these shapes.

    Raises:
      ValueError: if there is none, or more than one.
    """
    candidates = _candidates(clues)
    networks = _made(clues.side, candidates, shapes, sizes)
    fitting = [name for name in candidates if not _differences(networks[name], shapes, sizes)]
    if len(fitting) == 1:
        return networks[fitting[0]]
    where = f"{clues.side}[{clues.modality!r}]"
    if fitting:
        raise ValueError(
            f"{where} may be any of {fitting}, whose parameters look alike: say which, as in "
            f"{_named(clues, fitting[0])}"
        )
    if len(candidates) == 1:
        wrong = _differences(networks[candidates[0]], shapes, sizes)
        told = f"{len(wrong)} things differ, such as {'; '.join(wrong[:3])}"
    else:
        told = f"its parameters are {dict(list(shapes.items())[:3])} and so on"
    raise ValueError(f"{where} is none of {candidates}: {told}. {_way_out(clues, shapes, sizes)}")


def _candidates(clues: Clues) -> list[str]:
    known = NETWORKS[clues.side]
    if clues.named is not None:
        if clues.named not in known:
            reason = REFUSED.get(clues.named, f"known are {list(known)}")
            raise ValueError(
                f"{clues.side}[{clues.modality!r}] is {clues.named!r}, which is not converted: "
                f"{reason}. {_own_module(clues)}"
            )
        return [clues.named]
    if not clues.custom:
        return [DEFAULTS[clues.side]]
    return [name for name in known if clues.pickled is None or name in clues.pickled]


def _made(side: str, names: list[str], shapes: Shapes, sizes: Sizes) -> dict[str, Network]:
    return {name: NETWORKS[side][name](sizes, frozenset(shapes)) for name in names}


def _differences(network: Network, found: Shapes, sizes: Sizes) -> list[str]:
    """How the parameters and the images differ from what the network has."""
    expected = torch_shapes(network.layers)
    differing = [
        f"{name} is {found.get(name, 'missing')}, expected {expected.get(name, 'none')}"
        for name in {**expected, **found}
        if found.get(name) != expected.get(name)
    ]
    if network.image not in (None, sizes.image):
        differing.append(f"input_dims is {sizes.image or sizes.dim}, expected {network.image}")
    return differing


def _way_out(clues: Clues, shapes: Shapes, sizes: Sizes) -> str:
    """What can be done about a network that is none of those thought of."""
    others = _made(clues.side, list(NETWORKS[clues.side]), shapes, sizes)
    fitting = [name for name, network in others.items() if not _differences(network, shapes, sizes)]
    if fitting:
        return f"It can be {' or '.join(fitting)}: if so, give {_named(clues, fitting[0])}"
    refused = sorted((clues.pickled or frozenset()) & set(REFUSED))
    reasons = [f"{name} is not converted: {REFUSED[name]}. " for name in refused]
    return "".join(reasons) + _own_module(clues)


def _named(clues: Clues, name: str) -> str:
    return f"{clues.side}={{{clues.modality!r}: {name!r}}}"


def _own_module(clues: Clues) -> str:
    return (
        f"Give {clues.side}={{{clues.modality!r}: module}}, an NNX module that holds its parameters"
    )
