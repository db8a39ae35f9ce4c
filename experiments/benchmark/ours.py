"""Our MMVAE as a contender."""

import time
from collections.abc import Iterator
from typing import Any

import jax
import optax
from flax import nnx
from jaxtyping import Array, Float

import mmvae_jax as mm
from experiments.benchmark import data, host
from experiments.benchmark.cases import LEARNING_RATE
from experiments.benchmark.config import Config
from experiments.benchmark.models import build_model


class Ours:
    """Our step, or our joint likelihood."""

    def __init__(self, config: Config):
        self.config = config
        model = build_model(config.model_case, config.num_particles, config.seed)
        self.batches = _batches(config)
        self.task = TASKS[config.task](model, config)
        start = time.perf_counter()
        compiled = self.task.lower(next(self.batches)).compile()
        self.compile_seconds = time.perf_counter() - start
        self.temp_bytes = compiled.memory_analysis().temp_size_in_bytes
        params = nnx.state(model, nnx.Param)
        self.num_parameters = sum(leaf.size for leaf in jax.tree.leaves(params))

    def ready(self) -> dict[str, Any]:
        """What is known once the program is compiled."""
        return {
            "device": _device(),
            "versions": host.versions("mmvae_jax", "jax", "jaxlib", "flax"),
            "num_parameters": self.num_parameters,
            "backward": self.task.backward,
            "compile_seconds": self.compile_seconds,
            "temp_bytes": self.temp_bytes,
            "available_bytes": _available_bytes(),
        }

    def prepare(self) -> dict[str, Any]:
        """Train for as long as was asked."""
        for _ in range(self.config.train_steps):
            self.task.run(next(self.batches))
        return {}

    def repeat(self) -> dict[str, Any]:
        """One repetition on a new batch, which is on the device before the clock starts."""
        batch = jax.block_until_ready(next(self.batches))
        start = time.perf_counter()
        metrics = jax.block_until_ready(self.task.run(batch))
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "metrics": self.task.metrics(metrics)}


class Dense(Ours):
    """Our step that back-propagates everything."""

    def __init__(self, config: Config):
        super().__init__(config.replace(backward="dense"))


class Step:
    """A training step, as users call it."""

    def __init__(self, model: mm.MMVAE, config: Config):
        self.options = mm.Backward(
            config.backward,
            tolerance=config.tolerance,
            chunk=config.chunk,
            num_backward=config.num_backward,
            stacking=config.stacking,
        )
        num_experts = len(model.config.modalities)
        self.backward = self.options.resolve(num_experts, model.config.K, is_random=False).kind
        key = jax.random.key(config.seed)
        self.state = mm.create_train_state(model, optax.adam(LEARNING_RATE), key=key)

    def lower(self, batch: mm.Batch) -> jax.stages.Lowered:
        """The program; calls use what is compiled from it."""
        return mm.train_step.lower(self.state, batch, backward=self.options)

    def run(self, batch: mm.Batch) -> Any:
        """One step: the whole new state and the metrics."""
        self.state, metrics = mm.train_step(self.state, batch, backward=self.options)
        return self.state, metrics

    def metrics(self, results: Any) -> dict[str, float]:
        """Those that say what the backward pass did."""
        names = ("loss", "backward_share", "dropped_mass")
        return {name: float(results[1][name]) for name in names if name in results[1]}


class Likelihood:
    """compute_joint_nll of a batch."""

    backward = None

    def __init__(self, model: mm.MMVAE, config: Config):
        graphdef, self.state = nnx.split(model)
        self.key = jax.random.key(config.seed)

        @jax.jit
        def nll(state: nnx.State, batch: mm.Batch, key: Array) -> Float[Array, " b"]:
            merged = nnx.merge(graphdef, state, copy=True)
            K = model.config.K
            nll = mm.compute_joint_nll(merged, batch, key, K=K, batch_size_K=config.chunk)
            assert isinstance(nll, jax.Array), "diagnostics were not asked for"
            return nll

        self.nll = nll

    def lower(self, batch: mm.Batch) -> jax.stages.Lowered:
        """The program; calls use what is compiled from it."""
        return self.nll.lower(self.state, batch, self.key)

    def run(self, batch: mm.Batch) -> Float[Array, " b"]:
        """One estimate per example."""
        return self.nll(self.state, batch, self.key)

    def metrics(self, results: Any) -> dict[str, float]:
        """The mean estimate."""
        return {"nll": float(results.mean())}


TASKS = {"step": Step, "nll": Likelihood}


def _batches(config: Config) -> Iterator[mm.Batch]:
    images = data.batches(config.model_case, config.num_examples, config.seed, config.data_dir)
    return (jax.device_put(mm.Batch(data=arrays)) for arrays in images)


def _device() -> str:
    device = jax.devices()[0]
    return host.cpu() if device.platform == "cpu" else device.device_kind


def _available_bytes() -> int:
    """Memory that is left, of the device where it has its own."""
    stats = jax.devices()[0].memory_stats()
    return stats["bytes_limit"] - stats["bytes_in_use"] if stats else host.available_bytes()
