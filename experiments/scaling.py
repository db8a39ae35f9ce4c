"""Cost of a training step on several devices: formulas next to numbers of the compiled program.

    python -m experiments.scaling --devices 1 2 4 8

The formulas give the cost of a dense step per device, in single precision. They use the number of
parameters N, the operations E of all encoders per example and D of all decoders per particle,
B examples, M experts and K particles per expert, on data x particle devices:

    operations            3 B / data (E + M (K / particle) D)
    state, bytes          12 N (parameters and two moments of Adam), 12 N / data under fsdp
    all-reduce, bytes     4 N (gradients)
    all-gather, bytes     4 N under fsdp; with a particle axis 4 M K B / data (log weights)
    reduce-scatter, bytes 4 N / data under fsdp, instead of the all-reduce

Under fsdp the formulas hold for the sharded parameters. A sparse step needs (1 + 3 s) / 3 of the
decoders' operations, where s is the share of back-propagated particles. Programs are compiled for
virtual CPU devices and not run.
"""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

import mmvae_jax as mm
from experiments.benchmark.cases import CASES
from experiments.benchmark.flops import forward_flops, model_flops, network_flops
from experiments.benchmark.models import build_model
from experiments.benchmark.report import align
from experiments.command_line import run_command
from experiments.rows import Rows
from mmvae_jax.checks import check_choice
from mmvae_jax.training.mesh import Layout

#: Units of the table, by column.
UNITS = {"flops": 1e9, "state": 1e6, "all-reduce": 1e6, "all-gather": 1e6, "reduce-scatter": 1e6}
HEADER = ("data", "particle", "fsdp", "GFLOP", *(f"{name} MB" for name in list(UNITS)[1:]))
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
NUM_BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1}

#: Cost per device: operations, and bytes of the state and of each collective.
Cost = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScalingConfig:
    """Compare the expected cost of a dense training step on device meshes with XLA's programs."""

    case: str = "two_mlp"
    """Model: two_mlp, mnist_svhn or polymnist."""
    K: int = 8
    """Number of particles per expert."""
    batch: int = 64
    """Number of examples per step, over all devices."""
    devices: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of virtual devices."""
    out: Path = Path("runs/scaling")
    """Folder of the results, new or of an earlier call whose rows are kept."""

    def __post_init__(self) -> None:
        check_choice("case", self.case, tuple(CASES))
        for field in ("K", "batch"):
            value = getattr(self, field)
            if any(num < 1 or value % num for num in self.devices):
                raise ValueError(f"{field} is {value}: give a multiple of each of {self.devices}")


def main(config: ScalingConfig) -> list[dict[str, Any]]:
    """Computes the rows that ``out`` lacks, prints a table, and returns all rows.

    A row is a mesh, with the cost per device by the formulas and that of the compiled program.
    """
    jax.config.update("jax_num_cpu_devices", max(config.devices))
    model, rows = build_model(CASES[config.case], config.K, seed=0), Rows(config.out, config)
    for data, particle, fsdp in meshes(config.devices):
        asked = {"case": config.case, "K": config.K, "batch": config.batch}
        asked |= {"data": data, "particle": particle, "fsdp": fsdp}
        if rows.has(asked):
            continue
        mesh = mm.make_mesh(data, particle, devices=jax.devices()[: data * particle])
        expected = expected_cost(model, config.batch, mesh, fsdp=fsdp)
        found = compiled_cost(model, config.batch, mesh, fsdp=fsdp)
        rows.add({**asked, "formula": expected, "program": found})
    table: list[tuple[str, ...]] = [HEADER]
    for row in rows.all:
        costs = ((row["formula"][name] / x, row["program"][name] / x) for name, x in UNITS.items())
        cells = (f"{expected:.2f} / {found:.2f}" for expected, found in costs)
        table.append((*(str(row[name]) for name in ("data", "particle", "fsdp")), *cells))
    print("formula / compiled program, per device", align(table), sep="\n")
    return rows.all


def meshes(devices: tuple[int, ...]) -> list[tuple[int, int, bool]]:
    """Returns axis sizes and fsdp of the meshes that shard examples or particles."""
    several = [num for num in devices if num > 1]
    return (
        [(n, 1, False) for n in devices]
        + [(n, 1, True) for n in several]
        + [(1, n, False) for n in several]
    )


def expected_cost(model: mm.MMVAE, batch: int, mesh: jax.sharding.Mesh, *, fsdp: bool) -> Cost:
    """Returns the cost of a step with ``batch`` examples according to the formulas."""
    data, particle, num_experts = mesh.shape["data"], mesh.shape["particle"], len(model.encoders)
    dims = model.config.input_dims
    encode, decode = forward_flops(
        "step",
        encoders=sum(network_flops(model.encoders[m], dim) for m, dim in dims.items()),
        decoders=sum(network_flops(model.decoders[m], (model.config.latent_dim,)) for m in dims),
        num_experts=num_experts,
        K=model.config.K // particle,
        batch=batch // data,
    )
    params, layout = jax.tree.leaves(nnx.state(model, nnx.Param)), Layout(mesh, fsdp)
    sharded = sum(4 * p.size for p in params if layout.spec(p.shape))
    whole = sum(4 * p.size for p in params) - sharded
    log_weights = 4 * num_experts * model.config.K * batch // data if particle > 1 else 0
    return {
        "flops": model_flops(encode, decode, backward="dense", share=None),
        "state": 3 * (whole + sharded / data),
        "all-reduce": whole if data * particle > 1 else 0,
        "all-gather": sharded + log_weights,
        "reduce-scatter": sharded / data,
    }


def compiled_cost(model: mm.MMVAE, batch: int, mesh: jax.sharding.Mesh, *, fsdp: bool) -> Cost:
    """Returns the cost of a step with ``batch`` examples according to the compiled program."""
    key, tx = jax.random.key(0), optax.adam(1e-3)
    state = mm.create_train_state(model, tx, key=key, mesh=mesh, fsdp=fsdp)
    dims = model.config.input_dims
    images = {m: np.zeros((batch, *dim), np.float32) for m, dim in dims.items()}
    examples = mm.shard_batch(mm.Batch(data=images), mesh)
    program: Any = mm.train_step.lower(state, examples, backward=mm.Backward("dense")).compile()
    exchanged = collectives(program.as_text())
    if unknown := set(exchanged) - set(UNITS):
        raise RuntimeError(f"the program uses {unknown}, which the formulas do not cover")
    batch_bytes = sum(x.nbytes for x in images.values()) / mesh.shape["data"]
    return {
        **dict.fromkeys(UNITS, 0),
        "flops": program.cost_analysis()["flops"],
        "state": program.memory_analysis().argument_size_in_bytes - batch_bytes,
        **exchanged,
    }


def collectives(text: str) -> dict[str, int]:
    """Returns the output bytes of each kind of collective in the text of a compiled program."""
    found: dict[str, int] = {}
    pattern = rf"^[^=\n]*= (.*?) ({'|'.join(COLLECTIVES)})(-start)?\("
    for match in re.finditer(pattern, text, re.MULTILINE):
        for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", match[1]):
            size = math.prod(int(n) for n in shape.split(",") if n)
            found[match[2]] = found.get(match[2], 0) + NUM_BYTES[dtype] * size
    return found


if __name__ == "__main__":
    run_command(main, ScalingConfig, "experiments.scaling")
