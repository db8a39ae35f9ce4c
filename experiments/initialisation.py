"""Test bounds of the built-in networks from several initialisations, with equal budgets.

    python -m experiments.initialisation --data-dir FOLDER --out runs/initialisation

Runs of one data set differ only in initial parameters. The seed sets initial parameters, batches
and particles. A run is measured by the tight bound of test examples, after a quarter of the steps
and at the end.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jaxtyping import PRNGKeyArray
from sklearn.datasets import load_digits

import mmvae_jax as mm
from experiments import runs
from experiments.benchmark.report import align
from experiments.command_line import run_command
from experiments.digits import DigitsConfig
from experiments.experiment import Experiment, ExperimentData, Modules
from experiments.mnist_pairs import MNISTPairsConfig
from experiments.results.markdown import mean_and_spread
from experiments.rows import Rows
from experiments.stability import TumoursConfig
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_count
from mmvae_jax.data import num_examples, take
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.training.optimizer import make_optimizer

#: Particles of each expert in the measured bound.
NUM_PARTICLES = 20
#: Shares of the training steps after which the bound is measured.
PARTS = {"quarter": 0.25, "end": 1.0}


class Rule(NamedTuple):
    """Variances and limits of initial parameters by the place of a layer, for a fan-in of one.

    Attributes:
      hidden: variance of kernels before a nonlinearity.
      head: variance of the kernels of encoders' last layers, ``loc`` and ``log_var``.
      output: variance of the kernels of decoders' last layers.
      hidden_bias: largest size of the uniform biases before a nonlinearity.
      last_bias: largest size of all other biases.
      distribution: distribution of the kernels, an argument of ``variance_scaling``.
    """

    hidden: float
    head: float
    output: float
    hidden_bias: float = 0.0
    last_bias: float = 0.0
    distribution: Literal["uniform", "truncated_normal"] = "uniform"


#: Rules by name; None leaves the networks as the package makes them. The package gives networks of
#: images the rule of Flax, and other MLPs that of ``small_output_biases``.
RULES: dict[str, Rule | None] = {
    "flax": Rule(1, 1, 1, distribution="truncated_normal"),
    "flax_biases": Rule(1, 1, 1, hidden_bias=2),
    "pytorch": Rule(1 / 3, 1 / 3, 1 / 3, hidden_bias=1, last_bias=1),
    "small_output_biases": Rule(1 / 3, 1 / 3, 0.01, hidden_bias=2),
    "mmvae_jax": None,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableConfig(TumoursConfig):
    """Standardised tables with normal likelihoods of scale 0.5, and MLPs."""

    name: ClassVar[str] = "tables"
    num_classes: ClassVar[int] = 0

    table: str = "views"

    def load(self) -> ExperimentData:
        """Returns a table; every fifth row is a test example."""
        data = TABLES[self.table]()
        is_test = np.arange(num_examples(mm.MultimodalArrays(data))) % 5 == 0
        for name, x in data.items():
            x = x - x[~is_test].mean(0)
            data[name] = (x / np.maximum(x[~is_test].std(0), 0.1)).astype(np.float32)
        both = MultimodalArrays(data)
        train, test = take(both, np.flatnonzero(~is_test)), take(both, np.flatnonzero(is_test))
        return ExperimentData(train, test, train)

    def model_config(self) -> mm.MMVAEConfig:
        """Returns a config with normal views."""
        dims = {name: x.shape[1:] for name, x in TABLES[self.table]().items()}
        return mm.MMVAEConfig(
            input_dims=dims,
            decoder_dist_params={name: {"scale": 0.5} for name in dims},
            **self.model_settings(),
        )

    def make_networks(self, rngs: nnx.Rngs) -> tuple[Modules, Modules]:
        """Returns MLPs of one hidden layer of 512."""
        dims, d = self.model_config().input_dims, self.network_dim
        encoders = {
            name: MLPEncoder(dim, d, hidden=(512,), rngs=rngs) for name, dim in dims.items()
        }
        decoders = {
            name: MLPDecoder(d, dim, hidden=(512,), rngs=rngs) for name, dim in dims.items()
        }
        return encoders, decoders


def six_views() -> dict[str, np.ndarray]:
    """Returns six nonlinear views of eight shared factors, with noise of half their spread."""
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((2500, 8))
    data = {}
    for view, size in enumerate((20, 30, 40, 50, 60, 80)):
        hidden = np.tanh(factors @ rng.standard_normal((8, 32)) / 2 + rng.standard_normal(32) / 2)
        x = hidden @ rng.standard_normal((32, size)) / np.sqrt(32)
        data[f"view{view}"] = x + 0.5 * x.std(0) * rng.standard_normal(x.shape)
    return data


def quadrants() -> dict[str, np.ndarray]:
    """Returns the four quadrants of scikit-learn's digits, as columns."""
    found: Any = load_digits()
    halves = {"first": slice(0, 4), "second": slice(4, 8)}
    return {
        f"{row}_{column}": found.images[:, halves[row], halves[column]].reshape(-1, 16)
        for row in halves
        for column in halves
    }


TABLES: dict[str, Callable[[], dict[str, np.ndarray]]] = {
    "views": six_views,
    "quadrants": quadrants,
}
EXPERIMENTS: dict[str, Experiment] = {
    "views": TableConfig(table="views", K=5),
    "quadrants": TableConfig(table="quadrants", K=5),
    "tumours": TumoursConfig(K=5),
    "digits": DigitsConfig(K=3, num_steps=250),
    "digits-conv": DigitsConfig(networks="conv", hidden=(256,), K=2, batch_size=32, num_steps=150),
    "mnist_pairs": MNISTPairsConfig(K=3, num_epochs=None, num_steps=150),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitialisationConfig:
    """Train from several initialisations and compare test bounds."""

    rules: tuple[str, ...] = tuple(RULES)
    """Initialisations to compare; the package's own is mmvae_jax."""
    data: tuple[str, ...] = tuple(EXPERIMENTS)
    """Data sets to train on."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the runs from each initialisation."""
    num_steps: int | None = None
    """Number of training steps; None is the number of each data set."""
    num_test: int = 300
    """Largest number of test examples."""
    data_dir: Path | None = None
    """Folder of MNIST; None is $MMVAE_DATA, or a download."""
    out: Path = Path("runs/initialisation")
    """Folder of the results, new or of an earlier call whose rows are kept."""

    def __post_init__(self) -> None:
        if self.num_steps is not None:
            check_count("num_steps", self.num_steps)
        for field, known in (("rules", RULES), ("data", EXPERIMENTS)):
            if unknown := set(getattr(self, field)) - set(known):
                raise ValueError(f"{field} has {sorted(unknown)}: choose some of {list(known)}")


def main(config: InitialisationConfig) -> list[dict[str, Any]]:
    """Computes the rows that ``out`` lacks, prints a table of all, and returns them."""
    rows = Rows(config.out, config)
    for name in config.data:
        budget = Budget.of(name, config)
        for seed in config.seeds:
            for rule in config.rules:
                asked = {"data": name, "rule": rule, "seed": seed, "num_steps": budget.num_steps}
                if not rows.has(asked):
                    model = initial_model(budget.experiment, rule, seed)
                    rows.add(asked | train(model, budget, seed))
    for part in PARTS:
        print(f"{part} of the run\n{table(rows.all, part)}")
    return rows.all


class Budget(NamedTuple):
    """All that the runs on a data set have in common.

    Attributes:
      experiment: settings of the data set.
      num_steps: number of training steps.
      optimizer: one object for all runs, which therefore share one compiled program.
      train: training examples.
      test: test examples that the bound is measured on.
    """

    experiment: Experiment
    num_steps: int
    optimizer: optax.GradientTransformation
    train: MultimodalArrays
    test: MultimodalArrays

    @classmethod
    def of(cls, name: str, config: InitialisationConfig) -> "Budget":
        """Loads a data set and makes its optimizer."""
        experiment = dataclasses.replace(EXPERIMENTS[name], data_dir=config.data_dir)
        found = experiment.load()
        steps = config.num_steps or experiment.steps_on(found.train)
        optimizer = make_optimizer(experiment.schedule(steps), amsgrad=experiment.amsgrad)
        test = take(found.test, np.arange(min(config.num_test, num_examples(found.test))))
        return cls(experiment, steps, optimizer, found.train, test)


def initial_model(experiment: Experiment, rule: str, seed: int) -> mm.MMVAE:
    """Returns a model whose initial parameters follow a rule."""
    rngs = nnx.Rngs(seed)
    networks = experiment.make_networks(rngs)
    model = mm.MMVAE(experiment.model_config(), *networks, rngs=rngs)
    if (chosen := RULES[rule]) is not None:
        redraw(model, chosen, jax.random.key(seed))
    return model


def redraw(model: mm.MMVAE, rule: Rule, key: PRNGKeyArray) -> None:
    """Draws the parameters of all layers anew."""
    heads = [layer for net in model.encoders.values() for layer in (net.loc, net.log_var)]
    outputs = [net.out if hasattr(net, "out") else net.convs[-1] for net in model.decoders.values()]
    for _, layer in nnx.iter_graph(model):
        if not hasattr(layer, "kernel"):
            continue
        is_head, is_output = (any(layer is x for x in group) for group in (heads, outputs))
        variance = rule.head if is_head else rule.output if is_output else rule.hidden
        draw = nnx.initializers.variance_scaling(variance, "fan_in", rule.distribution)
        kernel = layer.kernel[...]
        bias = rule.last_bias if is_head or is_output else rule.hidden_bias
        limit = bias / np.sqrt(kernel.size / kernel.shape[-1])
        key, kernel_key, bias_key = jax.random.split(key, 3)
        layer.kernel.set_value(draw(kernel_key, kernel.shape))
        layer.bias.set_value(limit * jax.random.uniform(bias_key, kernel.shape[-1:], minval=-1.0))


def train(model: mm.MMVAE, budget: Budget, seed: int) -> dict[str, Any]:
    """Trains once, and returns the tight bound of the test examples on the way and at the end."""
    state = mm.create_train_state(model, budget.optimizer, key=jax.random.key(seed))
    bounds = {}
    for part, share in PARTS.items():
        state = mm.fit(
            state,
            budget.train,
            num_steps=max(1, int(share * budget.num_steps)),
            batch_size=budget.experiment.batch_size,
            seed=seed,
            log_every=budget.num_steps,
            progress=False,
        ).state
        trained = state.model()
        trained.config = trained.config.replace(loss="iwae", K=NUM_PARTICLES)
        measured = mm.create_train_state(trained, budget.optimizer, key=jax.random.key(0))
        bounds[part] = -mm.evaluate(measured, budget.test, batch_size=100)["loss"]
    return bounds


def table(rows: list[dict[str, Any]], part: str) -> str:
    """Returns the mean and standard deviation of the test bound over seeds."""
    names = list(dict.fromkeys(row["data"] for row in rows))
    cells = [("initialisation", *names)]
    for rule in dict.fromkeys(row["rule"] for row in rows):
        line = [rule]
        for name in names:
            own = [row[part] for row in rows if (row["data"], row["rule"]) == (name, rule)]
            line.append(mean_and_spread(own, 1))
        cells.append(tuple(line))
    return align(cells)


if __name__ == "__main__":
    run_command(runs.process()(main), InitialisationConfig, "experiments.initialisation")
