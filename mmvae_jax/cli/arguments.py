"""Arguments that several commands share, and arguments such as ``--likelihood age=normal``."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from tyro.conf import Positional, arg, create_mutex_group
from tyro.constructors import PrimitiveConstructorSpec

from mmvae_jax.likelihood_params import LIKELIHOOD_PARAMS

T = TypeVar("T")

RunFolder = Annotated[
    Path, Positional, arg(metavar="RUN", help="Folder that mmvae train wrote, its --out.")
]
#: Data for a trained model.
Data = Annotated[
    Path,
    Positional,
    arg(
        metavar="DATA",
        help="An .npz file or folder as for mmvae train; modalities and labels may be absent.",
    ),
]
Step = Annotated[
    int | None, arg(help="Checkpoint of the run.", help_behavior_hint="(default: the best)")
]
#: Group of ``mean`` and ``num_samples``, of which a command takes one.
MEAN_OR_DRAWS = create_mutex_group(required=False, title="mean or draws")
WeightingFlag = Annotated[
    Literal["mixture", "importance"],
    arg(help="Use of several given modalities: one at random per draw, or all at once (slower)."),
]
DrawSeed = Annotated[int, arg(help="Seed of the draws.")]


def named_values(
    metavar: str, parse: Callable[[str], T]
) -> PrimitiveConstructorSpec[Mapping[str, T]]:
    """Returns tyro's parser of any number of NAME=VALUE into a mapping.

    Args:
      metavar: form of one argument in help texts and messages, such as "NAME=SCALE".
      parse: parser of a value; it may raise ValueError.
    """

    def read(texts: list[str]) -> dict[str, T]:
        split = {name: value for name, _, value in (text.rpartition("=") for text in texts)}
        if "" in split or len(split) < len(texts):
            raise ValueError(f"{texts} is no list of {metavar}, each name once")
        return {name: parse(value) for name, value in split.items()}

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{metavar} [{metavar} ...]]",
        instance_from_str=read,
        is_instance=lambda x: isinstance(x, Mapping),
        str_from_instance=lambda x: [f"{name}={value}" for name, value in x.items()],
    )


def parse_likelihood(text: str) -> str:
    """Returns the name of a likelihood; raises ValueError for other texts."""
    if text not in LIKELIHOOD_PARAMS:
        raise ValueError(f"{text!r} is no likelihood: choose one of {list(LIKELIHOOD_PARAMS)}")
    return text
