"""Tables of the documentation by the name of their block."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from experiments.results import (
    evidence_tables,
    gpu_tables,
    model_tables,
    pretrained_tables,
    speed_tables,
    study_tables,
    training_tables,
)
from experiments.results.markdown import origin
from experiments.results.records import Record, read


class PageTable(NamedTuple):
    """A table of one study.

    Attributes:
      study: name of the record.
      make: function of the record that returns Markdown.
      has_origin: if True, a note on commit, machine and versions follows.
    """

    study: str
    make: Callable[[Record], str]
    has_origin: bool = True


def _text(table: PageTable) -> str:
    record = read(table.study)
    text = table.make(record)
    return f"{text}\n\n{origin(record)}" if table.has_origin else text


_MADE: Mapping[str, PageTable] = {
    "views": PageTable("views", evidence_tables.views),
    "class_sums": PageTable("class_sums", evidence_tables.class_sums),
    "prior_share": PageTable("prior_share", evidence_tables.prior_share),
    "certificates": PageTable("certificates", evidence_tables.certificates),
    "experts_drawn": PageTable("experts_drawn", evidence_tables.experts_drawn),
    "digits": PageTable("digits", model_tables.digits),
    "readme.digits": PageTable("digits", model_tables.digits, has_origin=False),
    "polymnist_certificates": PageTable("polymnist_certificates", evidence_tables.certificates),
    "digits.seconds": PageTable("digits", model_tables.run_seconds, has_origin=False),
    "scenes": PageTable("scenes", model_tables.scenes),
    "weighting": PageTable("digits", model_tables.weightings),
    "models": PageTable("models", model_tables.models),
    "polymnist": PageTable("polymnist", model_tables.models),
    "polymnist.pictures": PageTable("polymnist", model_tables.pictures, has_origin=False),
    "polymnist.three": PageTable("polymnist_three", model_tables.models),
    "polymnist.three.pictures": PageTable(
        "polymnist_three", model_tables.pictures, has_origin=False
    ),
    "polymnist.quadrant": PageTable("polymnist_quadrant", model_tables.models),
    "initialisation": PageTable("initialisation", training_tables.initialisation),
    "gpu.steps": PageTable("gpu", gpu_tables.steps, has_origin=False),
    "gpu.sparse": PageTable("gpu", gpu_tables.sparse_steps),
    "speed": PageTable("speed", speed_tables.against_multivae),
    "speed.range": PageTable("speed", speed_tables.range_against_multivae, has_origin=False),
    "speed.small": PageTable("small", speed_tables.small_steps),
    "speed.dense": PageTable("dense", speed_tables.against_dense),
    "speed.adaptive": PageTable("adaptive", speed_tables.ratio, has_origin=False),
    "startup": PageTable("startup", speed_tables.startup),
    "gpu.rate": PageTable("gpu", gpu_tables.product_rate, has_origin=False),
    "exactness": PageTable("exactness", speed_tables.exactness, has_origin=False),
    "losses.digits": PageTable("losses", partial(training_tables.losses, experiment="digits")),
    "losses.pairs": PageTable(
        "losses", partial(training_tables.losses, experiment="mnist_pairs"), has_origin=False
    ),
    "stability": PageTable("stability", training_tables.stability),
    "noise": PageTable("estimator_noise", training_tables.estimator_noise),
    "private": PageTable("private", speed_tables.private_latents),
    "pretrained": PageTable("pretrained", pretrained_tables.encoders),
    "pretrained.uses": PageTable("pretrained", pretrained_tables.uses, has_origin=False),
    "scaling": PageTable("scaling", speed_tables.scaling),
    "study.brca": PageTable("tables", partial(study_tables.folds, table="brca")),
    "study.digits": PageTable("tables", partial(study_tables.folds, table="digits")),
    "study.complete": PageTable("tables", study_tables.complete, has_origin=False),
    "study.held_out": PageTable("tables", study_tables.held_out, has_origin=False),
    "study.tuning": PageTable("tuning", study_tables.tuning),
    "study.linear": PageTable("tables", partial(study_tables.accuracy, method="linear"), False),
    "study.mmvae": PageTable("tables", partial(study_tables.accuracy, method="mmvae"), False),
    "study.tumours": PageTable("tables", partial(study_tables.folds, table="tumours")),
}

#: Functions that return the text of a block.
TABLES: dict[str, Callable[[], str]] = {
    name: partial(_text, table) for name, table in _MADE.items()
}
