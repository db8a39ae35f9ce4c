"""The command line's settings, checked before anything is started."""

import dataclasses
import importlib.util
import json
import math
from pathlib import Path
from typing import Any, Literal

from experiments.benchmark import data
from experiments.benchmark.cases import CASES, NLL_K, Case, with_modalities

MIN_REPEATS = 5
SWEPT = {"K": (1, 3, 10, 30, 100, 300), "batch": (8, 16, 32, 64, 128, 256)}
FIGURE_SUFFIXES = (".png", ".pdf", ".svg")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Time a training step, or a joint likelihood, and say what it needs."""

    case: Literal["two_mlp", "mnist_svhn", "polymnist"] = "mnist_svhn"
    """Modalities and their networks: two of MNIST with MLPs, MNIST and SVHN, five of PolyMNIST."""
    task: Literal["step", "nll"] = "step"
    """A training step, or compute_joint_nll of a batch."""
    K: int | None = None
    """Particles per expert of a step (by default 30, polymnist 10), or of a joint likelihood
    (1000)."""
    batch: int | None = None
    """Examples, by default 128; polymnist, and a joint likelihood of mnist_svhn, 32."""
    backward: Literal["auto", "dense", "sparse", "sampled", "residual"] = "auto"
    """Which particles the step back-propagates, see mmvae_jax.Backward."""
    tolerance: float = 1e-4
    """Weight that the sparse backward pass may drop."""
    chunk: int | None = None
    """Particles per decoder call; by default what mmvae_jax.Backward chooses."""
    num_backward: int = 1
    """Draws of the sampled backward pass."""
    stacking: Literal["auto", "separate", "scan", "vmap"] = "auto"
    """How networks of one architecture run, see mmvae_jax.Backward."""
    modalities: int | None = None
    """Number of modalities of polymnist, by default 5."""
    repeats: int = MIN_REPEATS
    """Timed repetitions of every contender."""
    seed: int = 0
    """Of data, initial parameters and particles."""
    data_dir: Path | None = None
    """Folder with MNIST's idx files: digits in place of random images, tinted where a case has
    colours, all modalities of an example of one class. A stand-in for SVHN and PolyMNIST."""
    train_steps: int = 0
    """Steps on digits before the timed ones: weights concentrate as the model learns. MultiVae's
    model is not trained, as its time does not depend on that."""
    against: Literal["multivae", "dense"] | None = None
    """Contender that takes turns with ours: MultiVae's MMVAE on torch, both on CPU, or our own
    dense step."""
    sweep: Literal["K", "batch"] | None = None
    """Time the dense, sparse and sampled step over a range of K or batch, and draw a figure."""
    values: tuple[int, ...] = ()
    """Values of the sweep; by default K from 1 to 300 or batch from 8 to 256."""
    figure: Path | None = None
    """File of the sweep's figure, by default benchmark_<case>_<sweep>.png; never overwritten."""
    compilation_cache: Path | None = None
    """Folder of JAX's compilation cache. Programs that an earlier run left there are not compiled
    again, which saves memory too; left out, every process compiles."""
    json: bool = False
    """Print one JSON object in place of the report."""

    @property
    def model_case(self) -> Case:
        """The case, with as many modalities as asked for."""
        case = CASES[self.case]
        return case if self.modalities is None else with_modalities(case, self.modalities)

    @property
    def num_particles(self) -> int:
        """K, or the default of the task and case."""
        default = NLL_K if self.task == "nll" else CASES[self.case].K
        return default if self.K is None else self.K

    @property
    def num_examples(self) -> int:
        """``batch``, or the default of the task and case."""
        case = CASES[self.case]
        default = case.nll_batch if self.task == "nll" else case.batch
        return default if self.batch is None else self.batch

    @property
    def swept_values(self) -> tuple[int, ...]:
        """Values of the sweep; none without one."""
        return self.values or SWEPT.get(self.sweep or "", ())

    @property
    def figure_file(self) -> Path:
        """Where the sweep's figure goes."""
        return self.figure or Path(f"benchmark_{self.case}_{self.sweep}.png")

    @property
    def data_name(self) -> str:
        """What the images are."""
        return "random images" if self.data_dir is None else "MNIST digits"

    def described(self) -> dict[str, Any]:
        """What is measured, without how it is shown; JSON can hold it."""
        shown = ("against", "data_dir", "figure", "json", "repeats", "sweep", "values")
        fields = {k: v for k, v in json.loads(self.to_json()).items() if k not in shown}
        sizes = {"K": self.num_particles, "batch": self.num_examples, "data": self.data_name}
        return {**fields, **sizes, "modalities": len(self.model_case.modalities)}

    def check(self) -> None:
        """Look for what is wrong before anything is computed.

        Raises:
          ValueError: naming the field, its value and the fix.
        """
        self._check_sweep()
        self._check_contenders()
        self._check_numbers()
        self._check_files()

    def replace(self, **changes: Any) -> "Config":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """JSON text, for a worker."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """The config that ``to_json`` wrote."""
        fields = json.loads(text)
        names = ("data_dir", "figure", "compilation_cache")
        paths = {name: Path(fields[name]) for name in names if fields[name] is not None}
        return cls(**{**fields, **paths, "values": tuple(fields["values"])})

    def _check(self, field: str, is_good: bool, fix: str) -> None:
        if not is_good:
            raise ValueError(f"{field} is {getattr(self, field)!r}: {fix}")

    def _check_sweep(self) -> None:
        """What goes with a sweep, and only with one."""
        if self.sweep is None:
            self._check("values", not self.values, "add --sweep K or --sweep batch")
            self._check("figure", self.figure is None, "add --sweep K or --sweep batch")
            return
        swept = getattr(self, self.sweep)
        self._check("against", self.against is None, "leave it out, or leave --sweep out")
        self._check("task", self.task == "step", "a sweep compares steps, leave --task out")
        self._check("backward", self.backward == "auto", "a sweep takes three, leave it out")
        self._check(self.sweep, swept is None, "the sweep sets it, give --values in its place")

    def _check_contenders(self) -> None:
        is_step = self.task == "step"
        self._check("against", is_step or self.against != "dense", "choose --task step")
        if self.against == "multivae":
            # torchvision is not needed: `standin` has what MultiVae imports of it.
            missing = [n for n in ("torch", "multivae") if importlib.util.find_spec(n) is None]
            self._check(
                "against",
                not missing,
                f"{' and '.join(missing)} cannot be imported, install them with "
                "`pip install torch multivae`, torch from its CPU build",
            )

    def _check_numbers(self) -> None:
        for field in ("K", "batch", "chunk", "num_backward"):
            value = getattr(self, field)
            self._check(field, value is None or value >= 1, "give an integer of at least 1")
        is_varied = self.modalities is None or (self.case == "polymnist" and self.modalities >= 2)
        self._check("modalities", is_varied, "give at least 2, and --case polymnist")
        is_batch = self.against != "multivae" or self.num_examples >= 2
        self._check("batch", is_batch, "MultiVae's networks take at least 2 examples")
        self._check("repeats", self.repeats >= MIN_REPEATS, f"give at least {MIN_REPEATS}")
        self._check("seed", self.seed >= 0, "give an integer of at least 0")
        is_share = math.isfinite(self.tolerance) and 0 <= self.tolerance < 1
        self._check("tolerance", is_share, "give a share from 0 to below 1")
        self._check("values", all(v >= 1 for v in self.values), "give integers of at least 1")
        self._check("train_steps", self.train_steps >= 0, "give an integer of at least 0")
        is_real = self.train_steps == 0 or self.data_dir is not None
        self._check("train_steps", is_real, "random images teach nothing, add --data-dir")
        is_step = self.train_steps == 0 or self.task == "step"
        self._check("train_steps", is_step, "the cost of a likelihood does not depend on it")

    def _check_files(self) -> None:
        if self.data_dir is not None:
            data.digit_files(self.data_dir)
        cache = self.compilation_cache
        is_folder = cache is None or cache.is_dir() or not cache.exists()
        self._check("compilation_cache", is_folder, "it is a file, give a folder or a new name")
        if self.sweep is None:
            return
        figure = self.figure_file
        if figure.suffix not in FIGURE_SUFFIXES:
            raise ValueError(f"figure is {figure}: end its name in {', '.join(FIGURE_SUFFIXES)}")
        if figure.exists():
            raise ValueError(f"figure is {figure}: it exists, choose another with --figure")
        if not figure.parent.is_dir():
            raise ValueError(f"figure is {figure}: there is no such folder, make it first")
