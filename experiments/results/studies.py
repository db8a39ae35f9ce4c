"""Studies of the documentation: the commands that measure its numbers."""

from typing import NamedTuple

from experiments.benchmark.cases import CASES


class Study(NamedTuple):
    """Commands whose rows are kept in one file of ``docs/results``.

    Attributes:
      name: name of the study and of its file.
      about: short description.
      minutes: rough time of all commands: of studies of times on two cores, of others on one.
      commands: what follows ``python -m experiments.``, with ``{out}`` for the folder of the
        results, ``{data}`` for that of the data sets, and ``{first}`` for the results of the first
        command. Those against MultiVae need a Python that imports torch and multivae.
      has_times: True if the rows are times, so that nothing else may run beside the study.
      on_gpu: True if the study is measured on a GPU.
      num_jobs: number of commands that run side by side, after the first.
    """

    name: str
    about: str
    minutes: float
    commands: tuple[str, ...]
    has_times: bool = False
    on_gpu: bool = False
    num_jobs: int = 1


def _contest(case: str, against: str, flags: str = "") -> str:
    return f"benchmark --json --case {case} --against {against} {flags}".strip()


def _omics(flags: str, tables: str = "tumours brca digits") -> str:
    return f"omics --tables {tables} --num-steps 1000 {flags} --out {{out}}"


def _polymnist(
    settings: str, *models: str, data: str = "{data}", seeds: tuple[int, ...] = (0, 1)
) -> tuple[str, ...]:
    """Returns commands of classifiers, then of every model and seed, on PolyMNIST."""
    return (
        f"train_classifiers --dataset polymnist --data-dir {data} --out {{out}}",
        *(
            f"polymnist {settings} --num-likelihood 100 --data-dir {data} --classifiers {{first}} "
            f"--seed {seed} {flags} --out {{out}}"
            for flags in models
            for seed in seeds
        ),
    )


_FIVE = (
    "mmvaeplus --networks mlp --no-separate-encoders --batch-size 128 --num-epochs 70 "
    "--num-test 4096 --num-samples 4096 --save-every 20000 --log-every 500"
)
_THREE = "small --modalities 3 --num-epochs 6 --num-test 2000 --num-samples 2000"
_PRIVATE = "--latent-dim 16 --modalities-specific-dim 16"
_MODELS = ("--latent-dim 32", _PRIVATE, f"{_PRIVATE} --number-of-clusters 40")
_DIGITS = "--data-dir {data} --train-steps 100"
_CARD = "--device gpu --precision tf32 --repeats 15 --backward"
_LISTED = (
    Study(
        "digits",
        "the main job, missing modalities, and weightings of several given ones",
        6,
        (
            "digits --out {out}",
            "digits --missing 0.2 --out {out}",
            "digits --missing 0.5 --loss dreg_looser --out {out}",
            "digits --weighting importance --out {out}",
        ),
        has_times=True,
    ),
    Study(
        "models",
        "MMVAE, MMVAE+, CMVAE, MVAE and MoPoE on PolyDigits",
        33,
        tuple(
            f"digits --posterior normal --samplers {flags} --out {{out}}"
            for flags in (
                "--seeds 0 1 --latent-dim 12",
                "--seeds 0 1 --latent-dim 8 --modalities-specific-dim 4",
                "--seeds 0 1 --latent-dim 8 --modalities-specific-dim 4 --number-of-clusters 10",
                "--seeds 0 1 --latent-dim 12 --aggregation poe",
                "--latent-dim 12 --aggregation mopoe",
            )
        ),
    ),
    Study(
        "polymnist",
        "MMVAE, MMVAE+ and CMVAE on PolyMNIST",
        8,
        _polymnist(
            _FIVE,
            "--latent-dim 64 --modalities-specific-dim 0",
            "--latent-dim 32 --modalities-specific-dim 32",
            "--latent-dim 32 --modalities-specific-dim 32 --number-of-clusters 40",
        ),
        on_gpu=True,
        num_jobs=6,
    ),
    Study(
        "polymnist_three",
        "MMVAE, MMVAE+, CMVAE and MoPoE on three modalities of PolyMNIST",
        265,
        _polymnist(
            _THREE,
            *_MODELS,
            *(f"{model} --posterior normal" for model in _MODELS),
            "--latent-dim 32 --aggregation mopoe --posterior normal",
        ),
    ),
    Study(
        "polymnist_quadrant",
        "MMVAE and MMVAE+ on small digits in random quadrants of PolyMNIST's photographs",
        37,
        _polymnist(_THREE, *_MODELS[:2], data="{data}/quadrant", seeds=(0,)),
    ),
    Study(
        "polymnist_certificates",
        "likelihoods of PolyMNIST by several estimates",
        30,
        (
            "polymnist small --data-dir {data} --num-epochs 3 --num-likelihood 500 --num-test 4000 "
            "--num-samples 4000 --out {out}",
            "certificates --run {first} --data-dir {data} --out {out}",
        ),
    ),
    Study("estimator_noise", "noise of gradient estimators", 1, ("estimator_noise --out {out}",)),
    Study(
        "losses",
        "losses on PolyDigits and MNIST pairs",
        49,
        (
            "losses --experiments digits --out {out}",
            "losses --experiments mnist_pairs --data-dir {data} --seeds 0 1 --num-steps 500 "
            "--losses dreg_looser iwae_looser adaptive_dreg_looser --out {out}",
        ),
    ),
    Study(
        "stability",
        "losses where posteriors are narrow",
        37,
        (
            "stability --data-dir {data} --data tumours --out {out}",
            "stability --data-dir {data} --data polymnist-0.2 --seeds 0 1 --out {out}",
            "stability --data-dir {data} --data polymnist-0.75 --seeds 0 1 --losses iwae_looser "
            "adaptive_dreg_looser dreg_looser --out {out}",
        ),
    ),
    Study(
        "initialisation", "initial weights", 20, ("initialisation --data-dir {data} --out {out}",)
    ),
    Study(
        "scenes",
        "MNIST and digit scenes, by the protocol of MNIST-SVHN",
        8,
        (
            "train_classifiers --dataset mnist-scenes --data-dir {data} --out {out}",
            "mnist_scenes paper --num-epochs None --num-steps 20000 --num-test 4096 "
            "--num-samples 4096 --save-every 10000 --log-every 500 --data-dir {data} "
            "--classifiers {first} --out {out}",
        ),
        on_gpu=True,
    ),
    Study(
        "gpu",
        "steps on a GPU against MultiVae, and sparse against dense ones",
        5,
        (
            *(_contest(case, "multivae", f"{_CARD} dense") for case in CASES),
            *(_contest(case, "dense", f"{_CARD} sparse") for case in CASES),
            _contest("mnist_svhn", "dense", f"{_CARD} sparse --K 100"),
            _contest("polymnist", "multivae", f"{_CARD} dense --latent-dim 32 --private 32 --K 1"),
        ),
        has_times=True,
        on_gpu=True,
    ),
    Study("exactness", "sparse against dense gradients", 5, ("exactness --out {out}",)),
    Study(
        "speed",
        "steps and likelihoods against MultiVae",
        14,
        (
            *(_contest(case, "multivae", flags) for case in CASES for flags in ("", _DIGITS)),
            _contest("two_mlp", "multivae", "--task nll"),
            _contest("mnist_svhn", "multivae", "--task nll"),
        ),
        has_times=True,
    ),
    Study(
        "dense",
        "steps against the dense step, by the share of particles that count",
        11,
        (
            *(
                _contest(case, "dense", f"--scale {scale:g}")
                for case, scales in (
                    ("two_mlp", (50, 3, 1.5, 0.75, 0.3)),
                    ("mnist_svhn", (50, 0.75)),
                    ("polymnist", (50, 0.75)),
                )
                for scale in scales
            ),
            _contest("two_mlp", "dense", f"--scale 0.75 {_DIGITS}"),
            _contest("polymnist", "dense", "--scale 0.75 --data-dir {data} --train-steps 20"),
        ),
        has_times=True,
    ),
    Study(
        "small",
        "sparse steps of few particles against dense ones",
        3,
        tuple(
            f"benchmark --json --case two_mlp --K 10 --batch {batch} --backward sparse "
            "--against dense --repeats 25"
            for batch in (4, 16, 26, 32, 64, 128)
        ),
        has_times=True,
    ),
    Study(
        "private",
        "steps of MMVAE+ against MultiVae's, and against MMVAE",
        4,
        tuple(
            "benchmark --json --case polymnist --latent-dim 32 --private 32 --repeats 15 "
            f"--against {other} --K {K}"
            for other in ("multivae", "mmvae")
            for K in (10, 1)
        ),
        has_times=True,
    ),
    Study(
        "adaptive",
        "steps of adaptive_dreg and mixture_dreg",
        2,
        (
            "benchmark --json --case two_mlp --loss adaptive_dreg_looser --against mixture_dreg "
            "--repeats 200",
        ),
        has_times=True,
    ),
    Study("views", "predictions from one view and from all", 17, ("views --seeds 0 --out {out}",)),
    Study("certificates", "likelihoods by several estimates", 4, ("certificates --out {out}",)),
    Study(
        "experts_drawn",
        "all experts and some, in equal seconds",
        12,
        ("experts_drawn --seconds 120 --data-dir {data} --out {out}",),
        has_times=True,
    ),
    Study("startup", "seconds to the first step", 4, ("startup --out {out}",), has_times=True),
    Study("prior_share", "particles from the prior", 1, ("prior_share --out {out}",)),
    Study("class_sums", "probabilities of all classes", 1, ("class_sums --out {out}",)),
    Study("scaling", "cost of a step on several devices", 1, ("scaling --out {out}",)),
    Study(
        "pretrained",
        "a frozen image network as an encoder",
        5,
        ("pretrained --seeds 0 --weights {data}/efficientnet_lite0.safetensors --out {out}",),
    ),
    Study(
        "tables",
        "classes and views of tables, in folds",
        31,
        (
            _omics("--missing 0.3"),
            _omics("--missing 0.3 --methods multivae"),
            _omics("--missing 0.3 --part held_out --methods linear averaged mmvae laplace"),
            _omics("--missing 0 --methods linear averaged mmvae", "tumours"),
        ),
    ),
    Study(
        "tuning",
        "settings of the estimator, in tuning folds",
        20,
        tuple(
            _omics(
                f"--missing 0.3 --part tune --folds {folds} --uses {uses} --methods linear laplace "
                "mmvae 'laplace 32' 'laplace tight' 'laplace beta 0.3'",
                table,
            )
            for table, folds, uses in (
                ("tumours", "0 1 2", "mixture importance"),
                ("brca", "0 1", "mixture"),
                ("digits", "0 1", "mixture importance"),
            )
        ),
    ),
)

#: Studies by name.
STUDIES = {study.name: study for study in _LISTED}
#: Names of those that need no GPU.
ON_CPU = tuple(name for name, study in STUDIES.items() if not study.on_gpu)
