"""The settings of the benchmark's command line.

The process of MultiVae imports them too. JAX would add to its memory, so only ``check`` imports it.
"""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any, Literal

from experiments.benchmark.cases import CASES, LOSS, NLL_K, Case, polymnist_case

MIN_REPEATS = 5
TOLERANCE = 1e-4
VALUES = (1, 3, 10, 30, 100, 300)
FIGURE_SUFFIXES = (".png", ".pdf", ".svg")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Time a training step or a joint likelihood, and report its memory and rate."""

    case: Literal["two_mlp", "mnist_svhn", "polymnist"] = "mnist_svhn"
    """Modalities and networks: two MNIST digits with MLPs, MNIST and SVHN, or five of PolyMNIST."""
    task: Literal["step", "nll"] = "step"
    """Time a training step, or compute_joint_nll of a batch."""
    K: int | None = None
    """Particles per expert of a step (by default 30, polymnist 10), or of a joint likelihood
    (1000)."""
    batch: int | None = None
    """Examples, by default 128; 32 for polymnist and for a joint likelihood of mnist_svhn."""
    loss: str = LOSS
    """Bound and gradient estimator of the step; docs/losses.md lists them all."""
    backward: Literal["auto", "dense", "sparse", "sampled", "residual"] = "auto"
    """Particles that the step back-propagates, see mmvae_jax.Backward."""
    scale: float | None = None
    """Scale of the likelihoods, by default 0.75; with a larger one more particles carry weight."""
    tolerance: float = TOLERANCE
    """Weight that the sparse backward pass may drop."""
    chunk: int | None = None
    """Particles per decoder call, by default the choice of mmvae_jax.Backward."""
    num_backward: int = 1
    """Draws of the sampled backward pass."""
    modalities: int | None = None
    """Number of modalities of polymnist, by default 5."""
    latent_dim: int | None = None
    """Size of the latent, or of its shared part; by default 20, polymnist 512."""
    private: int = 0
    """Size of the private latent of each modality; above 0 the models are MMVAE+."""
    repeats: int = MIN_REPEATS
    """Timed repetitions of every contender."""
    seed: int = 0
    """Seed of data, initial parameters and particles."""
    data_dir: Path | None = None
    """Folder with MNIST's four idx files. Digits then replace random images, tinted where a case
    has colours; all digits of an example have the same class."""
    train_steps: int = 0
    """Steps on digits before the timed ones, because weights concentrate as a model learns.
    MultiVae's model is not trained: its time depends on shapes only."""
    against: Literal["multivae", "dense", "mmvae", "mixture_dreg"] | None = None
    """Contender that takes turns with ours: MultiVae's model (torch), our own dense step, our
    MMVAE whose networks have latents of the same size as those of an MMVAE+, or our step with the
    loss mixture_dreg_looser."""
    device: Literal["cpu", "gpu"] | None = None
    """Device of all contenders, by default JAX's default device; the CPU against MultiVae."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the networks' computation, by torch.autocast in MultiVae."""
    precision: Literal["tf32", "float32"] | None = None
    """Precision of float32 products on a GPU, by default that of each library."""
    sweep: Literal["K"] | None = None
    """Time the dense, sparse and sampled step over a range of K, and draw a figure."""
    values: tuple[int, ...] = VALUES
    """Values of the sweep."""
    figure: Path | None = None
    """New file for the sweep's figure, by default benchmark_<case>_K.png."""
    json: bool = False
    """Print one JSON object instead of the report."""

    @property
    def model_case(self) -> Case:
        """The case, with the number of modalities and the latents that were asked for."""
        case = CASES[self.case] if self.modalities is None else polymnist_case(self.modalities)
        latent_dim = case.latent_dim if self.latent_dim is None else self.latent_dim
        return case._replace(latent_dim=latent_dim, private=self.private)

    @property
    def num_particles(self) -> int:
        """``K``, or the default of the task and case."""
        default = NLL_K if self.task == "nll" else CASES[self.case].K
        return default if self.K is None else self.K

    @property
    def num_examples(self) -> int:
        """``batch``, or the default of the task and case."""
        case = CASES[self.case]
        default = case.nll_batch if self.task == "nll" else case.batch
        return default if self.batch is None else self.batch

    @property
    def figure_file(self) -> Path:
        """File of the sweep's figure."""
        return self.figure or Path(f"benchmark_{self.case}_K.png")

    @property
    def data(self) -> str:
        """Name of the data in reports."""
        return "random images" if self.data_dir is None else "MNIST digits"

    @property
    def is_on_cpu(self) -> bool:
        """True if no other device may be used."""
        return self.device == "cpu" or (self.device is None and self.against == "multivae")

    def problem(self) -> dict[str, Any]:
        """Returns the settings that decide the measurements."""
        names = (
            "case",
            "task",
            "loss",
            "backward",
            "scale",
            "tolerance",
            "chunk",
            "num_backward",
            "seed",
            "data",
            "dtype",
            "precision",
        )
        sizes = {"K": self.num_particles, "batch": self.num_examples}
        case = self.model_case
        sizes |= {"modalities": len(case.modalities), "train_steps": self.train_steps}
        sizes |= {"latent_dim": case.latent_dim, "private": case.private}
        return {name: getattr(self, name) for name in names} | sizes

    def contender(self) -> "BenchmarkConfig":
        """Returns the settings of the contender that ``against`` names."""
        if self.against == "dense":
            return self.replace(backward="dense")
        if self.against == "mmvae":
            return self.replace(latent_dim=self.model_case.network_dim, private=0)
        if self.against == "mixture_dreg":
            return self.replace(loss="mixture_dreg_looser")
        return self

    def replace(self, **changes: Any) -> "BenchmarkConfig":
        """Returns a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def check(self) -> None:
        """Checks all settings, before anything is computed.

        Raises:
          ValueError: naming the field, its value and the fix.
          FileNotFoundError: if ``data_dir`` lacks one of MNIST's files.
        """
        from mmvae_jax import Backward
        from mmvae_jax.checks import check_choice, check_count, check_positive
        from mmvae_jax.data.datasets.mnist import mnist
        from mmvae_jax.maths.losses import LOSSES

        for field, value in {
            "K": self.num_particles,
            "batch": self.num_examples,
            "latent_dim": self.model_case.latent_dim,
        }.items():
            check_count(field, value)
        check_choice("loss", self.loss, tuple(LOSSES))
        if self.scale is not None:
            check_positive("scale", self.scale)
        Backward(tolerance=self.tolerance, chunk=self.chunk, num_backward=self.num_backward)
        for field, is_met, fix in [*self._rules(), *(self._sweep_rules() if self.sweep else ())]:
            if not is_met:
                raise ValueError(f"{field} is {getattr(self, field)}: {fix}")
        if self.data_dir is not None:
            mnist(self.data_dir)

    def _rules(self) -> list[tuple[str, bool, str]]:
        """Field, condition and advice of each rule."""
        is_step, is_multivae = self.task == "step", self.against == "multivae"
        is_sampled = self.backward == "sampled" or self.sweep is not None
        own_steps = ("dense", "mixture_dreg")
        is_varied = self.modalities is None or (self.case == "polymnist" and self.modalities >= 2)
        can_train = is_step and self.data_dir is not None
        has_device = self.device != "gpu" or _has_gpu()
        # MultiVae can be imported without torchvision, see ``standin``.
        found = all(map(importlib.util.find_spec, ("torch", "multivae") if is_multivae else ()))
        return [
            ("repeats", self.repeats >= MIN_REPEATS, f"give at least {MIN_REPEATS}"),
            ("seed", self.seed >= 0, "give an integer of at least 0"),
            ("train_steps", self.train_steps >= 0, "give an integer of at least 0"),
            ("train_steps", not self.train_steps or can_train, "give --data-dir, and --task step"),
            ("modalities", is_varied, "give at least 2, and --case polymnist"),
            ("scale", self.scale is None or not is_multivae, "leave it out against MultiVae"),
            ("private", self.private >= 0, "give an integer of at least 0"),
            ("private", is_step or not is_multivae or not self.private, "choose --task step"),
            ("against", is_step or self.against not in own_steps, "choose --task step"),
            (
                "against",
                self.backward != "dense" or self.against != "dense",
                "give --backward auto",
            ),
            ("loss", is_step or self.loss == LOSS, "choose --task step"),
            ("backward", is_step or self.backward == "auto", "choose --task step"),
            ("tolerance", is_step or self.tolerance == TOLERANCE, "choose --task step"),
            ("num_backward", self.num_backward == 1 or is_sampled, "give --backward sampled"),
            ("values", self.sweep is not None or self.values == VALUES, "give --sweep K"),
            ("figure", self.sweep is not None or self.figure is None, "give --sweep K"),
            ("loss", self.loss == LOSS or not is_multivae, "leave it out against MultiVae"),
            ("against", self.private > 0 or self.against != "mmvae", "give --private as well"),
            ("against", found, "run `pip install torch multivae` first"),
            ("device", has_device, "install JAX for the GPU, or choose --device cpu"),
            ("precision", not self.precision or self.device == "gpu", "choose --device gpu"),
            ("batch", not is_multivae or self.num_examples >= 2, "MultiVae needs at least 2"),
        ]

    def _sweep_rules(self) -> list[tuple[str, bool, str]]:
        """Rules of a sweep."""
        file, suffixes = self.figure_file, ", ".join(FIGURE_SUFFIXES)
        return [
            ("values", min(self.values, default=0) >= 1, "give integers of at least 1"),
            ("K", self.K is None, "the sweep sets it, give --values instead"),
            ("against", self.against is None, "leave it out, or leave --sweep out"),
            ("task", self.task == "step", "a sweep compares steps, leave --task out"),
            ("backward", self.backward == "auto", "a sweep takes three, leave it out"),
            ("figure_file", file.suffix in FIGURE_SUFFIXES, f"end --figure in {suffixes}"),
            ("figure_file", not file.exists(), "it exists, choose another with --figure"),
            ("figure_file", file.parent.is_dir(), f"make the folder {file.parent} first"),
        ]


def _has_gpu() -> bool:
    """Returns True if JAX's default device is a GPU."""
    import jax

    return jax.default_backend() == "gpu"
