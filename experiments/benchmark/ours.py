"""Our MMVAE as a contender."""

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

import mmvae_jax as mm
from experiments.benchmark import host
from experiments.benchmark.cases import LEARNING_RATE
from experiments.benchmark.config import BenchmarkConfig
from experiments.benchmark.models import build_model, use_device
from experiments.versions import versions


class Ours:
    """A training step or a joint likelihood, compiled for the shapes of the config."""

    def __init__(self, config: BenchmarkConfig):
        use_device(config)
        model = build_model(
            config.model_case,
            config.num_particles,
            config.seed,
            config.scale,
            config.dtype,
            config.loss,
        )
        self.num_parameters = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
        self.task = TASKS[config.task](model, config)
        shapes = {
            name: jax.ShapeDtypeStruct((config.num_examples, *spec.dim), np.float32)
            for name, spec in config.model_case.modalities.items()
        }
        start = time.perf_counter()
        self.program = self.task.lower(mm.Batch(data=shapes)).compile()
        self.compile_seconds = time.perf_counter() - start

    def describe(self) -> dict[str, Any]:
        """Returns versions, sizes and the time of compilation."""
        device = jax.devices()[0]
        stats = device.memory_stats()
        return {
            "device": host.cpu_name() if device.platform == "cpu" else device.device_kind,
            "versions": versions("mmvae_jax", "jax", "jaxlib", "flax"),
            "num_parameters": self.num_parameters,
            "backward": self.task.backward,
            "compile_seconds": self.compile_seconds,
            "compilation_cache": jax.config.values["jax_compilation_cache_dir"],
            "temp_bytes": self.program.memory_analysis().temp_size_in_bytes,
            "memory_bytes": stats["bytes_limit"] if stats else host.memory_bytes(),
        }

    def repeat(self, images: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Runs a batch, which is on the device before the clock starts."""
        batch = jax.block_until_ready(jax.device_put(mm.Batch(data=images)))
        start = time.perf_counter()
        metrics = jax.block_until_ready(self.task.run(self.program, batch))
        seconds = time.perf_counter() - start
        stats = jax.devices()[0].memory_stats() or {}  # a CPU has none
        return {
            "seconds": seconds,
            "metrics": {name: float(x) for name, x in metrics.items()},
            "peak_device_bytes": stats.get("peak_bytes_in_use"),
        }


class Step:
    """A training step."""

    def __init__(self, model: mm.MMVAE, config: BenchmarkConfig):
        self.options = mm.Backward(
            config.backward,
            tolerance=config.tolerance,
            chunk=config.chunk,
            num_backward=config.num_backward,
        )
        num_experts = len(model.config.modalities)
        size = (num_experts, model.config.K, config.num_examples)
        self.backward = self.options.resolve(*size, tile_size=1, is_random=False).kind
        key = jax.random.key(config.seed)
        self.state = mm.create_train_state(model, optax.adam(LEARNING_RATE), key=key)

    def lower(self, batch: mm.Batch) -> jax.stages.Lowered:
        """Returns the program for batches of these shapes."""
        return mm.train_step.lower(self.state, batch, backward=self.options)

    def run(self, program: jax.stages.Compiled, batch: mm.Batch) -> dict[str, Array]:
        """Takes one step, and returns the loss and the metrics of the backward pass."""
        self.state, metrics = jax.block_until_ready(program(self.state, batch))
        names = ("loss", "backward_share", "dropped_mass")
        return {name: metrics[name] for name in names if name in metrics}


class JointLikelihood:
    """``compute_joint_nll`` of a batch."""

    backward = None

    def __init__(self, model: mm.MMVAE, config: BenchmarkConfig):
        graphdef, self.state = nnx.split(model)
        self.key = jax.random.key(config.seed)

        def nll(state: nnx.State, batch: mm.Batch, key: Array) -> Float[Array, ""]:
            merged = nnx.merge(graphdef, state, copy=True)
            K = model.config.K
            nll = mm.compute_joint_nll(merged, batch, key, K=K, batch_size_K=config.chunk)
            assert isinstance(nll, jax.Array), "diagnostics were not asked for"
            return nll.mean()

        self.nll = jax.jit(nll)

    def lower(self, batch: mm.Batch) -> jax.stages.Lowered:
        """Returns the program for batches of these shapes."""
        return self.nll.lower(self.state, batch, self.key)

    def run(self, program: jax.stages.Compiled, batch: mm.Batch) -> dict[str, Array]:
        """Returns the mean estimate."""
        return {"nll": program(self.state, batch, self.key)}


TASKS = {"step": Step, "nll": JointLikelihood}
