"""What an experiment is: settings that all of them share, data, a model and a way to train it."""

import abc
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import optax
import tyro
from flax import nnx
from jaxtyping import PRNGKeyArray

import mmvae_jax as mm
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_count
from mmvae_jax.data.arrays import num_examples
from mmvae_jax.training.optimizer import make_optimizer
from mmvae_jax.training.setup import count_steps, run_config

#: Networks by modality.
Modules = dict[str, Any]
#: Examples of a modality that is text, as strings.
AsText = Callable[[np.ndarray], list[str]]
#: Fields that say where a run is computed and kept, not what it computes.
ELSEWHERE = (
    "preset",
    "data_dir",
    "classifiers",
    "inception",
    "seeds",
    "out",
    "resume",
    "mesh",
    "fsdp",
    "coordinator",
    "num_processes",
    "process_id",
)


class Problem(NamedTuple):
    """The data of an experiment.

    Attributes:
      train: to train on.
      test: to measure on, complete and with labels.
      probe: complete training examples with labels, for latent probes: few enough to be in
        memory.
      texts: how modalities that are text become strings.
    """

    train: MultimodalArrays
    test: MultimodalArrays
    probe: MultimodalArrays
    texts: Mapping[str, AsText] = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(abc.ABC):
    """Train an MMVAE, measure it on unseen examples and draw what it generates."""

    name: ClassVar[str]
    #: Of the labels that generated examples are judged by; 0 leaves out what needs a classifier.
    num_classes: ClassVar[int]

    preset: tyro.conf.Suppress[str] = "default"
    """Name of the settings that others were changed from."""
    latent_dim: int = 20
    """Size of the latent variable."""
    K: int = 30
    """Particles drawn from each modality's posterior."""
    loss: str = "dreg_looser"
    """Bound and gradient estimator, a key of mmvae_jax.config.LOSSES."""
    posterior: Literal["laplace_with_softmax", "normal"] = "laplace_with_softmax"
    """Family of posteriors and prior."""
    learn_prior: bool = True
    """Train the prior's scale."""
    beta: float = 1.0
    """Weight of log p(z) - log q(z|X) in the importance weights."""
    backward: Literal["auto", "dense", "sparse", "sampled", "residual"] = "auto"
    """Which particles the gradient is computed from, see mmvae_jax.Backward."""
    missing: float = 0.0
    """Probability that a modality of a training example is hidden; one always stays."""
    batch_size: int = 128
    """Examples per training step."""
    learning_rate: float = 1e-3
    """Rate of the optimizer."""
    amsgrad: bool = True
    """Divide by the largest second moment so far, as Shi et al. (2019) do, instead of Adam's."""
    num_epochs: int | None = 30
    """Epochs of training, if the number of steps is None."""
    num_steps: int | None = None
    """Training steps, if the number of epochs is None."""
    log_every: int = 50
    """Steps between rows of history.jsonl."""
    save_every: int = 500
    """Steps between checkpoints; the newest three are kept."""
    num_test: int = 10_000
    """Test examples to measure on, at most."""
    num_samples: int = 10_000
    """Samples of the prior for the joint coherence."""
    num_likelihood: int = 1000
    """Test examples whose likelihoods are estimated, at most; 0 leaves likelihoods out."""
    num_particles: int = 1000
    """Particles that each likelihood is estimated from."""
    num_gradients: int = 0
    """Gradients of one batch that the noise of the encoders' gradient is estimated from; 0 leaves
    it out."""
    data_dir: Path | None = None
    """Folder of the data sets; without one, that of $MMVAE_DATA, or a download where there is one
    to check."""
    classifiers: Path | None = None
    """Folder of ``python -m experiments.train_classifiers``; without one, classifiers are trained
    for each run."""
    inception: Path | None = None
    """File of InceptionV3's weights, for Frechet distances as published; without one they are those
    of the classifiers' features alone."""
    seed: int = 0
    """Of data, initial parameters and particles."""
    seeds: tuple[int, ...] = ()
    """Seeds of several runs, in folders ``seed<N>`` of ``out``, instead of one with ``seed``."""
    out: Path = Path("runs/experiment")
    """Folder of the run, new or empty."""
    resume: bool = False
    """Go on with the run in ``out``, which must have the same settings."""
    mesh: tuple[int, int] | None = None
    """Devices to spread the examples over, and the particles; by default one device, or with
    several processes all of them for the examples."""
    fsdp: bool = False
    """Spread large parameters over the devices, too."""
    coordinator: str | None = None
    """Address and port of the first of several processes, the same for all."""
    num_processes: int = 1
    """Processes that train together, on one machine or more."""
    process_id: int = 0
    """Number of this one, from 0."""

    def __post_init__(self) -> None:
        counts = ("batch_size", "log_every", "save_every", "num_test", "num_samples")
        for field in (*counts, "num_particles", "num_processes"):
            check_count(field, getattr(self, field))
        lengths = {f: getattr(self, f) for f in ("num_steps", "num_epochs")}
        given = {field: value for field, value in lengths.items() if value is not None}
        if len(given) != 1:
            raise ValueError(f"{lengths}: give one of them, and None for the other")
        check_count(*given.popitem())
        self.check("num_likelihood", is_count(self.num_likelihood + 1), "give an integer from 0 on")
        is_enough = self.num_gradients == 0 or is_count(self.num_gradients - 1)
        self.check("num_gradients", is_enough, "give 0, or an integer of at least 2")
        self.check("seed", is_count(self.seed + 1), "give an integer of at least 0")
        are_seeds = all(is_count(seed + 1) for seed in self.seeds)
        is_set = are_seeds and len(set(self.seeds)) == len(self.seeds)
        self.check("seeds", is_set, "give different integers of at least 0")
        self.check("missing", 0 <= self.missing <= 1, "give a probability from 0 to 1")
        self.check_positive("learning_rate")
        mm.Backward(self.backward)
        is_mesh = self.mesh is None or all(map(is_count, self.mesh))
        self.check("mesh", is_mesh, "give two integers of at least 1")
        is_spread = self.mesh is not None or self.num_processes > 1
        self.check("fsdp", is_spread or not self.fsdp, "add --mesh")
        is_known = self.coordinator is not None or self.num_processes == 1
        self.check("coordinator", is_known, "give address:port of the first process")
        is_one = is_count(self.process_id + 1) and self.process_id < self.num_processes
        self.check("process_id", is_one, f"give 0 to {self.num_processes - 1}")
        mm.MMVAEConfig(input_dims={"any": (1,)}, **self.model_settings())

    @abc.abstractmethod
    def load(self) -> Problem:
        """The data, of this config's seed.

        Raises:
          FileNotFoundError: if they are not there, saying where to get them.
        """

    @abc.abstractmethod
    def model_config(self) -> mm.MMVAEConfig:
        """The settings of the model."""

    @abc.abstractmethod
    def make_networks(self, rngs: nnx.Rngs) -> tuple[Modules, Modules]:
        """New encoders and decoders."""

    def schedule(self, num_steps: int) -> optax.ScalarOrSchedule:
        """The learning rate, here the same in all steps."""
        del num_steps
        return self.learning_rate

    def model_settings(self) -> dict[str, Any]:
        """What a model's settings take over as it is."""
        return {
            "latent_dim": self.latent_dim,
            "K": self.K,
            "prior_and_posterior_dist": self.posterior,
            "learn_prior": self.learn_prior,
            "beta": self.beta,
            "loss": self.loss,
        }

    def measure_more(
        self, model: mm.MMVAE, problem: Problem, test: MultimodalArrays, key: PRNGKeyArray
    ) -> dict[str, Any]:
        """What this experiment measures besides what all do; JSON can hold it."""
        del model, problem, test, key
        return {}

    def check(self, field: str, is_good: bool, fix: str) -> None:
        """Refuses a field.

        Raises:
          ValueError: naming the field, its value and the fix, unless it is good.
        """
        if not is_good:
            raise ValueError(f"{field} is {getattr(self, field)!r}: {fix}")

    def check_positive(self, *fields: str) -> None:
        """Refuses fields that are no positive numbers.

        Raises:
          ValueError: for the first of them.
        """
        for field in fields:
            value = getattr(self, field)
            self.check(field, math.isfinite(value) and value > 0, "give a finite number above 0")

    def settings(self) -> dict[str, Any]:
        """What a run computes depends on these fields alone; JSON can hold them."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in ELSEWHERE}

    def run_config(self) -> dict[str, Any]:
        """What is left beside the checkpoints."""
        return run_config(self.model_config(), self.batch_size, self.seed, self.settings())

    def runs(self) -> Iterator["Experiment"]:
        """The runs of this config, one for each seed."""
        if not self.seeds:
            yield self
        for seed in self.seeds:
            out = self.out / f"seed{seed}"
            resume = self.resume and out.exists()  # later seeds may not have begun
            yield dataclasses.replace(self, seed=seed, seeds=(), out=out, resume=resume)

    def steps_on(self, train: MultimodalArrays) -> int:
        """Steps of the whole run."""
        return count_steps(train, self.num_steps, self.num_epochs, self.batch_size)

    def init_state(
        self, init_key: PRNGKeyArray, train_key: PRNGKeyArray, num_steps: int
    ) -> mm.TrainState:
        """The state of step 0."""
        rngs = nnx.Rngs(init_key)
        encoders, decoders = self.make_networks(rngs)
        model = mm.MMVAE(self.model_config(), encoders, decoders, rngs=rngs)
        mesh = None
        if self.mesh is not None or self.num_processes > 1:
            mesh = mm.make_mesh(*(self.mesh or ()))
        optimizer = make_optimizer(self.schedule(num_steps), amsgrad=self.amsgrad)
        return mm.create_train_state(model, optimizer, key=train_key, mesh=mesh, fsdp=self.fsdp)


def is_count(value: Any) -> bool:
    """Whether it is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def some_rows(dataset: MultimodalArrays, num: int) -> np.ndarray:
    """Returns the sorted indices of ``num`` examples drawn without replacement (all, if fewer).

    They are the same for every run.
    """
    total = num_examples(dataset)
    drawn = np.random.default_rng(0).permutation(total)[:num]
    return np.sort(drawn)
