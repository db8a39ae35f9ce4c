"""Studies of the documentation: the commands that measure its numbers."""

from typing import NamedTuple


class Study(NamedTuple):
    """Commands whose rows are kept in one file of ``docs/results``.

    Attributes:
      name: name of the study and of its file.
      about: short description.
      minutes: rough time of all commands on two cores.
      commands: what follows ``python -m experiments.``, with ``{out}`` for the folder of the
        results and ``{data}`` for that of the data sets. Those against MultiVae need a Python that
        imports torch and multivae.
    """

    name: str
    about: str
    minutes: float
    commands: tuple[str, ...]


_LISTED = (
    Study(
        "digits",
        "the main job, and missing modalities",
        5,
        (
            "digits --out {out}",
            "digits --missing 0.2 --out {out}",
            "digits --missing 0.5 --loss dreg_looser --out {out}",
        ),
    ),
    Study("estimator_noise", "noise of gradient estimators", 2, ("estimator_noise --out {out}",)),
    Study(
        "losses",
        "losses on PolyDigits and MNIST pairs",
        45,
        ("losses --data-dir {data} --out {out}",),
    ),
    Study(
        "stability",
        "losses where posteriors are narrow",
        25,
        (
            "stability --data-dir {data} --data tumours polymnist-0.2 --out {out}",
            "stability --data-dir {data} --data polymnist-0.75 --losses iwae_looser "
            "adaptive_dreg_looser dreg_looser --out {out}",
        ),
    ),
    Study(
        "initialisation",
        "initial parameters of built-in networks",
        15,
        ("initialisation --data-dir {data} --out {out}",),
    ),
    Study("exactness", "sparse against dense gradients", 5, ("exactness --out {out}",)),
    Study("startup", "seconds to the first step", 5, ("startup --out {out}",)),
    Study("prior_share", "particles from the prior", 2, ("prior_share --out {out}",)),
    Study("scaling", "cost of a step on several devices", 2, ("scaling --out {out}",)),
    Study(
        "tables",
        "classes and views of tables, in folds",
        25,
        (
            "omics --tables brca tumours digits --missing 0.3 --out {out}",
            "omics --tables brca tumours digits --missing 0.3 --methods multivae --out {out}",
        ),
    ),
)

#: Studies by name.
STUDIES = {study.name: study for study in _LISTED}
