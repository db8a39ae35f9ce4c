"""Arguments that several commands have, and those of the kind ``--likelihood age=normal``."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from mmvae_jax.config import LIKELIHOOD_PARAMS

T = TypeVar("T")

RunFolder = Annotated[Path, Positional, arg(metavar="RUN", help="The --out of mmvae train.")]
#: For a model that is trained.
Data = Annotated[
    Path,
    Positional,
    arg(metavar="DATA", help="As for mmvae train; modalities and labels may be left out."),
]
Step = Annotated[
    int | None, arg(help="Which checkpoint of the run.", help_behavior_hint="(default: the best)")
]


def pairs(metavar: str, parse: Callable[[str], T]) -> PrimitiveConstructorSpec[Mapping[str, T]]:
    """How tyro reads any number of NAME=VALUE into a mapping; parse may raise ValueError."""

    def read(texts: list[str]) -> dict[str, T]:
        split = {name: value for name, _, value in (text.rpartition("=") for text in texts)}
        if "" in split or len(split) < len(texts):
            raise ValueError(f"{texts} are not {metavar}, each name once")
        return {name: parse(value) for name, value in split.items()}

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{metavar} [{metavar} ...]]",
        instance_from_str=read,
        is_instance=lambda x: isinstance(x, Mapping),
        str_from_instance=lambda x: [f"{name}={value}" for name, value in x.items()],
    )


def parse_likelihood(text: str) -> str:
    """One of the likelihoods; ValueError for another word."""
    if text not in LIKELIHOOD_PARAMS:
        raise ValueError(f"{text!r} is no likelihood: choose one of {list(LIKELIHOOD_PARAMS)}")
    return text
