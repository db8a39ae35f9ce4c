"""Arguments that several commands share, and the form of ``--likelihood age=normal``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from tyro.conf import Positional, arg
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
)

from mmvae_jax.tables.reading import read_tables
from mmvae_jax.tables.row_files import read_row_file
from mmvae_jax.tables.tables import Tables

RunFolder = Annotated[
    Path, Positional, arg(metavar="RUN", help="Folder that mmvae train wrote, its --out.")
]
#: Data for a trained model.
Data = Annotated[
    Path,
    Positional,
    arg(
        metavar="DATA",
        help="A file or folder as for mmvae train; modalities and labels may be absent.",
    ),
]
Step = Annotated[
    int | None, arg(help="Checkpoint of the run.", help_behavior_hint="(default: the best)")
]
RowFile = Annotated[
    Path | None,
    arg(
        help="Text file of the rows to use, one per line: names of the tables' index, or numbers.",
        help_behavior_hint="(default: all)",
    ),
]
WeightingFlag = Annotated[
    Literal["mixture", "importance"],
    arg(help="Use of several given modalities: one at random per draw, or all at once (slower)."),
]


def named_values(type_info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Mapping] | None:
    """Returns tyro's parser of NAME=VALUE arguments, for the fields that are mappings."""
    if type_info.type_origin is not Mapping:
        return None
    _, value_type = get_args(type_info.type)
    parse = float if value_type is float else str
    metavar = "NAME=NUMBER" if value_type is float else "NAME=TEXT"

    def read(texts: list[str]) -> dict[str, Any]:
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


#: The rules by which tyro reads the commands' arguments.
REGISTRY = ConstructorRegistry()
REGISTRY.primitive_rule(named_values)


def read_data(path: Path, rows: Path | None, modalities: Sequence[str] = ()) -> Tables:
    """Returns the tables of DATA, only these modalities and rows if any are named."""
    tables = read_tables(path, modalities=modalities or None)
    return tables if rows is None else tables.take(read_row_file(rows, tables))
