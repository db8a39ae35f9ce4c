"""Base class of the experiments: shared settings, data, model and optimizer."""

import abc
import dataclasses
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
from mmvae_jax.checks import check_count, check_positive
from mmvae_jax.data import num_examples
from mmvae_jax.training.optimizer import make_optimizer
from mmvae_jax.training.run_settings import settings_of_run
from mmvae_jax.training.setup import count_steps

#: Networks by modality.
Modules = dict[str, Any]
#: Function that turns examples of a text modality into strings.
AsText = Callable[[np.ndarray], list[str]]
#: Fields that must be integers of at least 1.
COUNTS = (
    "batch_size",
    "log_every",
    "save_every",
    "num_test",
    "num_samples",
    "num_particles",
    "num_processes",
)
#: Fields that do not change the model that a run trains: the machine, files, and the networks that
#: the model is measured with.
NOT_SETTINGS = (
    *("preset", "data_dir", "classifiers", "inception", "seeds", "out", "resume"),
    *("mesh", "fsdp", "coordinator", "num_processes", "process_id"),
)


class ExperimentData(NamedTuple):
    """The data of an experiment.

    Attributes:
      train: training examples.
      test: test examples, complete; with labels if the experiment has classes.
      probe: complete training examples for latent probes, few enough to fit into memory.
      texts: by text modality, a function that turns examples into strings.
    """

    train: MultimodalArrays
    test: MultimodalArrays
    probe: MultimodalArrays
    texts: Mapping[str, AsText] = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(abc.ABC):
    """Train an MMVAE, measure it on test examples and draw figures."""

    # The docstrings of the fields are help texts: one line each, because tyro keeps line breaks.
    name: ClassVar[str]
    #: Number of classes; 0 for data without classes, which leaves out all that needs a classifier.
    num_classes: ClassVar[int]

    preset: tyro.conf.Suppress[str] = "default"
    """Name of the preset that the settings are based on."""
    latent_dim: int = 20
    """Number of latent dimensions, of the shared latent where modalities have private ones."""
    modalities_specific_dim: int = 0
    """Size of the private latent of each modality; above 0 for MMVAE+ and CMVAE."""
    number_of_clusters: int = 1
    """Number of clusters of the prior; above 1 for CMVAE."""
    aggregation: Literal["moe", "poe", "mopoe"] = "moe"
    """Components of q(z|X): poe is MVAE and mopoe MoPoE; both need --posterior normal."""
    K: int = 30
    """Number of particles drawn from each modality's posterior."""
    loss: str = "adaptive_dreg_looser"
    """Bound and gradient estimator, such as iwae_looser; docs/losses.md lists them all."""
    posterior: Literal["laplace_with_softmax", "normal", "normal_with_softplus"] = (
        "laplace_with_softmax"
    )
    """Family of the posteriors and the prior."""
    learn_prior: bool = True
    """Train the scale of the prior."""
    beta: float = 1.0
    """Weight of log p(z) - log q(z|X) in the importance weights."""
    backward: Literal["auto", "dense", "sparse", "sampled", "residual"] = "auto"
    """Particles that are back-propagated, see mmvae_jax.Backward."""
    missing: float = 0.0
    """Probability that a modality of a training example is missing; one always remains."""
    batch_size: int = 128
    """Number of examples per training step."""
    learning_rate: float = 1e-3
    """Learning rate of the optimizer."""
    amsgrad: bool = True
    """Use AMSGrad instead of Adam, as Shi et al. (2019) do."""
    num_epochs: int | None = 30
    """Number of training epochs; None with num_steps."""
    num_steps: int | None = None
    """Number of training steps; None with num_epochs."""
    log_every: int = 50
    """Number of steps between rows of history.jsonl."""
    save_every: int = 500
    """Number of steps between checkpoints; the newest three are kept."""
    num_test: int = 10_000
    """Largest number of test examples to measure on."""
    num_samples: int = 10_000
    """Number of prior samples for the joint coherence."""
    weighting: Literal["mixture", "importance"] = "mixture"
    """Use of several given modalities where coherence is measured; docs/weighting.md has both."""
    samplers: bool = False
    """Measure the joint coherence of a Gaussian mixture and a flow, fitted to the latents, too."""
    num_likelihood: int = 1000
    """Largest number of test examples for likelihood estimates; 0 skips them."""
    num_particles: int = 1000
    """Number of particles per likelihood estimate."""
    num_gradients: int = 0
    """Number of gradients to measure the noise of the encoders' gradient with; 0 skips it."""
    data_dir: Path | None = None
    """Folder of the data sets; None is $MMVAE_DATA, or a download where one is offered."""
    classifiers: Path | None = None
    """Folder from experiments.train_classifiers; None trains classifiers in every run."""
    inception: Path | None = None
    """File of InceptionV3 weights for Frechet distances; None uses only classifier features."""
    seed: int = 0
    """Seed of the data, the initial parameters and the particles."""
    seeds: tuple[int, ...] = ()
    """Seeds of several runs in folders seed<N> of out; replaces seed unless empty."""
    out: Path = Path("runs/experiment")
    """Folder of the results, new or empty."""
    resume: bool = False
    """Continue the runs in out, which must have the same settings."""
    mesh: tuple[int, int] | None = None
    """Devices to shard examples and particles over; None is one, or all of several processes."""
    fsdp: bool = False
    """Shard large parameters over the devices as well; needs a mesh."""
    coordinator: str | None = None
    """Address and port of process 0, needed by several processes."""
    num_processes: int = 1
    """Number of processes that train together and shard the examples."""
    process_id: int = 0
    """Number of this process, from 0."""

    def __post_init__(self) -> None:
        for field in COUNTS:
            check_count(field, getattr(self, field))
        if (self.num_steps is None) == (self.num_epochs is None):
            raise ValueError(
                f"num_steps is {self.num_steps} and num_epochs is {self.num_epochs}: give one of "
                "them, and None for the other"
            )
        for field in ("num_steps", "num_epochs"):
            if getattr(self, field) is not None:
                check_count(field, getattr(self, field))
        check_positive("learning_rate", self.learning_rate)
        self.check("missing", 0 <= self.missing <= 1, "give a probability from 0 to 1")
        for field in ("num_likelihood", "seed"):
            self.check(field, is_count(getattr(self, field), 0), "give an integer of at least 0")
        is_enough = self.num_gradients == 0 or is_count(self.num_gradients, 2)
        self.check("num_gradients", is_enough, "give 0, or an integer of at least 2")
        are_seeds = all(is_count(seed, 0) for seed in self.seeds)
        is_set = are_seeds and len(set(self.seeds)) == len(self.seeds)
        self.check("seeds", is_set, "give different integers of at least 0")
        for field, default in (
            ("classifiers", None),
            ("samplers", False),
            ("weighting", "mixture"),
        ):
            is_used = self.num_classes > 0 or getattr(self, field) == default
            self.check(field, is_used, f"leave it out, {self.name} has no classes")
        self._check_devices()
        # Checks of the library, before any data are loaded.
        mm.Backward(self.backward)
        mm.MMVAEConfig(input_dims={"any": (1,)}, **self.model_settings())

    def _check_devices(self) -> None:
        is_mesh = self.mesh is None or all(map(is_count, self.mesh))
        self.check("mesh", is_mesh, "give two integers of at least 1")
        has_mesh = self.mesh is not None or self.num_processes > 1
        self.check("fsdp", has_mesh or not self.fsdp, "add --mesh")
        is_known = self.coordinator is not None or self.num_processes == 1
        self.check("coordinator", is_known, "give address:port of process 0")
        is_one = is_count(self.process_id, 0) and self.process_id < self.num_processes
        self.check("process_id", is_one, f"give 0 to {self.num_processes - 1}")

    @abc.abstractmethod
    def load(self) -> ExperimentData:
        """Loads the data for this seed.

        Raises:
          FileNotFoundError: if the data are missing; the message says where to get them.
        """

    @abc.abstractmethod
    def model_config(self) -> mm.MMVAEConfig:
        """Returns the config of the model."""

    @abc.abstractmethod
    def make_networks(self, rngs: nnx.Rngs) -> tuple[Modules, Modules]:
        """Returns new encoders and decoders."""

    @property
    def network_dim(self) -> int:
        """Size of the latent that encoders and decoders have: the shared and the private one."""
        return self.latent_dim + self.modalities_specific_dim

    def schedule(self, num_steps: int) -> optax.ScalarOrSchedule:
        """Returns the learning rate, constant unless an experiment overrides it."""
        del num_steps
        return self.learning_rate

    def model_settings(self) -> dict[str, Any]:
        """Returns the fields of ``mm.MMVAEConfig`` that all experiments set alike."""
        return {
            "latent_dim": self.latent_dim,
            "modalities_specific_dim": self.modalities_specific_dim,
            "number_of_clusters": self.number_of_clusters,
            "aggregation": self.aggregation,
            "K": self.K,
            "prior_and_posterior_dist": self.posterior,
            "learn_prior": self.learn_prior,
            "beta": self.beta,
            "loss": self.loss,
        }

    def measure_more(
        self, model: mm.MMVAE, problem: ExperimentData, test: MultimodalArrays, key: PRNGKeyArray
    ) -> dict[str, Any]:
        """Returns JSON metrics that only this experiment measures; none by default."""
        del model, problem, test, key
        return {}

    def check(self, field: str, is_valid: bool, fix: str) -> None:
        """Checks a field.

        Raises:
          ValueError: with the field, its value and the fix if ``is_valid`` is False.
        """
        if not is_valid:
            raise ValueError(f"{field} is {getattr(self, field)!r}: {fix}")

    def settings(self) -> dict[str, Any]:
        """Returns the fields that the results of a run depend on, as JSON values."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in NOT_SETTINGS}

    def run_config(self) -> dict[str, Any]:
        """Returns the metadata that are saved with the checkpoints."""
        return settings_of_run(self.model_config(), self.batch_size, self.seed, self.settings())

    def runs(self) -> Iterator["Experiment"]:
        """Yields the config of each run, one for each seed."""
        if not self.seeds:
            yield self
        for seed in self.seeds:
            out = self.out / f"seed{seed}"
            resume = self.resume and out.exists()  # later seeds may not have begun
            yield dataclasses.replace(self, seed=seed, seeds=(), out=out, resume=resume)

    def steps_on(self, train: MultimodalArrays) -> int:
        """Returns the number of training steps."""
        return count_steps(train, self.num_steps, self.num_epochs, self.batch_size)

    def init_state(
        self, init_key: PRNGKeyArray, train_key: PRNGKeyArray, num_steps: int
    ) -> mm.TrainState:
        """Returns the train state at step 0."""
        rngs = nnx.Rngs(init_key)
        encoders, decoders = self.make_networks(rngs)
        model = mm.MMVAE(self.model_config(), encoders, decoders, rngs=rngs)
        mesh = None
        if self.mesh is not None or self.num_processes > 1:
            mesh = mm.make_mesh(*(self.mesh or ()))
        optimizer = make_optimizer(self.schedule(num_steps), amsgrad=self.amsgrad)
        return mm.create_train_state(model, optimizer, key=train_key, mesh=mesh, fsdp=self.fsdp)


def is_count(value: Any, least: int = 1) -> bool:
    """Returns True for integers of at least ``least``; False for other values and bools."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def some_rows(dataset: MultimodalArrays, num: int) -> np.ndarray:
    """Returns sorted indices of ``num`` examples, drawn without replacement with a fixed seed.

    Returns the indices of all examples if the dataset has fewer than ``num``.
    """
    total = num_examples(dataset)
    drawn = np.random.default_rng(0).permutation(total)[:num]
    return np.sort(drawn)
