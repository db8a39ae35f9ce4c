"""Tables of the documentation by the name of their block."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from experiments.results import model_tables, speed_tables, study_tables, training_tables
from experiments.results.markdown import origin
from experiments.results.records import Record, read


class Table(NamedTuple):
    """A table of one study.

    Attributes:
      study: name of the record.
      make: function of the record that returns Markdown.
      has_origin: if True, a note on commit, machine and versions follows.
    """

    study: str
    make: Callable[[Record], str]
    has_origin: bool = True


def _text(table: Table) -> str:
    record = read(table.study)
    text = table.make(record)
    return f"{text}\n\n{origin(record)}" if table.has_origin else text


_MADE: Mapping[str, Table] = {
    "polymnist": Table("polymnist_models", model_tables.polymnist_models),
    "initialisation": Table("initialisation", training_tables.initialisation),
    "gpu.steps": Table("gpu", speed_tables.gpu_steps, has_origin=False),
    "gpu.memory": Table("gpu", speed_tables.gpu_memory),
    "noise": Table("estimator_noise", training_tables.estimator_noise),
    "scaling": Table("scaling", speed_tables.scaling),
    "study.brca": Table("tables", partial(study_tables.folds, table="brca")),
    "study.linear": Table("tables", partial(study_tables.accuracy, method="linear"), False),
    "study.mmvae": Table("tables", partial(study_tables.accuracy, method="mmvae"), False),
    "study.tumours": Table("tables", partial(study_tables.folds, table="tumours")),
}

#: Functions that return the text of a block.
TABLES: dict[str, Callable[[], str]] = {
    name: partial(_text, table) for name, table in _MADE.items()
}
