"""What a training step costs on several devices: formulas beside what the compiled program says.

    python -m experiments.scaling --devices 1 2 4 8

With N parameters, E and D operations of all encoders for an example and of all decoders for a
particle, B examples, K particles from each of M experts and P = data x particle devices, a dense
step takes of each device, in single precision,

    operations        3 B / data (E + M (K / particle) D)
    kept memory       12 N bytes (parameters, two moments of Adam), 12 N / data under fsdp
    activations       grow with B / data, M^2 and K / particle; not with K in a sparse step
    exchange          4 N bytes of gradients, summed over all devices; under fsdp 4 N gathered,
                      and 4 N / data scattered to each; beside it some scalars
    on particle axes  4 M K B / data bytes of log weights, gathered

and a sparse one ``(1 + 3 s) / 3`` of the decoders' operations, with s the share of particles that
it back-propagates. No device is needed: programs are compiled for virtual ones.
"""

import dataclasses
import json
import re
import sys
from typing import Any

import jax
import numpy as np
import optax
import tyro
from flax import nnx

import mmvae_jax as mm
from experiments.benchmark.cases import CASES
from experiments.benchmark.flops import forward_flops, model_flops
from experiments.benchmark.models import build_model
from experiments.benchmark.rates import network_flops
from experiments.benchmark.report import aligned
from mmvae_jax.training.mesh import Layout

EXCHANGES = ("all-reduce", "all-gather", "reduce-scatter")
OTHERS = ("all-to-all", "collective-permute")
NUM_BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1}
HEADER = ("data", "particle", "fsdp", "GFLOP", "kept MB", *(f"{name} MB" for name in EXCHANGES))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Compare what a dense step should cost on meshes of devices with what XLA compiles."""

    case: str = "two_mlp"
    """Model and sizes, a key of experiments.benchmark.cases.CASES."""
    K: int = 8
    """Particles per expert."""
    batch: int = 64
    """Examples of a step, on all devices together."""
    devices: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of virtual devices."""
    json: bool = False
    """Print JSON in place of a table."""

    def __post_init__(self) -> None:
        if self.case not in CASES:
            raise ValueError(f"case is {self.case!r}: choose one of {list(CASES)}")
        for field in ("K", "batch"):
            if any(num < 1 or getattr(self, field) % num for num in self.devices):
                raise ValueError(
                    f"{field} is {getattr(self, field)}: give a multiple of each of the numbers "
                    f"of devices {self.devices}"
                )


def main(config: Config) -> list[dict[str, Any]]:
    """Print a row for the formulas and one for the program, for every mesh."""
    jax.config.update("jax_num_cpu_devices", max(config.devices))
    model = build_model(CASES[config.case], config.K, seed=0)
    rows = []
    for data, particle, fsdp in meshes(config.devices):
        mesh = mm.make_mesh(data, particle, devices=jax.devices()[: data * particle])
        row = {"data": data, "particle": particle, "fsdp": fsdp}
        print(f"compiling for {row}", file=sys.stderr)
        found = compiled(config, model, mesh, fsdp=fsdp)
        rows.append(row | {"predicted": predicted(config, model, mesh, fsdp=fsdp), "found": found})
    print(json.dumps(rows) if config.json else table(rows))
    return rows


def meshes(devices: tuple[int, ...]) -> list[tuple[int, int, bool]]:
    """Every number of devices on the data axis, with and without fsdp, and on the particle axis."""
    many = [num for num in devices if num > 1]
    return [
        *((num, 1, False) for num in devices),
        *((num, 1, True) for num in many),
        *((1, num, False) for num in many),
    ]


def predicted(config: Config, model: mm.MMVAE, mesh: jax.sharding.Mesh, *, fsdp: bool) -> dict:
    """What the formulas say of one device."""
    data, particle = mesh.shape["data"], mesh.shape["particle"]
    case, num_experts = CASES[config.case], len(model.config.modalities)
    dims = model.config.input_dims
    encode, decode = forward_flops(
        "step",
        encoders=sum(network_flops(model.encoders[m], dim) for m, dim in dims.items()),
        decoders=sum(network_flops(model.decoders[m], (case.latent_dim,)) for m in dims),
        num_experts=num_experts,
        K=config.K // particle,
        batch=config.batch // data,
    )
    params = jax.tree.leaves(nnx.state(model, nnx.Param))
    layout = Layout(mesh, fsdp)
    spread = sum(4 * p.size for p in params if layout.spec(p.shape))
    whole = sum(4 * p.size for p in params) - spread
    gathered = 4 * num_experts * config.K * config.batch // data if particle > 1 else 0
    return {
        "flops": model_flops(encode, decode, backward="dense", share=None),
        "kept": 3 * (whole + spread / data),
        "all-reduce": whole if data * particle > 1 else 0,
        "all-gather": spread + gathered,
        "reduce-scatter": spread / data,
    }


def compiled(config: Config, model: mm.MMVAE, mesh: jax.sharding.Mesh, *, fsdp: bool) -> dict:
    """What the compiled program says of one device."""
    tx = optax.adam(1e-3)
    state = mm.create_train_state(model, tx, key=jax.random.key(0), mesh=mesh, fsdp=fsdp)
    dims = model.config.input_dims
    images = {m: np.zeros((config.batch, *dim), np.float32) for m, dim in dims.items()}
    batch = mm.shard_batch(mm.Batch(data=images), mesh)
    program = mm.train_step.lower(state, batch, backward=mm.Backward("dense")).compile()
    text, cost, memory = program.as_text(), program.cost_analysis(), program.memory_analysis()
    assert text is not None, "programs for CPU have a text, costs and a size"
    assert cost is not None
    assert memory is not None
    exchanged = collectives(text)
    if others := set(exchanged) - set(EXCHANGES):
        raise RuntimeError(f"the program exchanges by {others}, which the formulas do not know")
    own_images = sum(x.nbytes for x in images.values()) / mesh.shape["data"]
    return {
        "flops": cost["flops"],
        "kept": memory.argument_size_in_bytes - own_images,
        **{name: exchanged.get(name, 0) for name in EXCHANGES},
    }


def collectives(text: str) -> dict[str, int]:
    """Bytes that come out of each kind of exchange in the text of a compiled program."""
    found: dict[str, int] = {}
    pattern = re.compile(rf"= (.*?) ({'|'.join(EXCHANGES + OTHERS)})(-start)?\(")
    for line in text.splitlines():
        if match := pattern.search(line):
            for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", match[1]):
                size = int(np.prod([int(n) for n in shape.split(",") if n]))
                found[match[2]] = found.get(match[2], 0) + NUM_BYTES[dtype] * size
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Formula / program, for every mesh."""
    lines = []
    for row in rows:
        said, found = row["predicted"], row["found"]
        units = {"flops": 1e9, "kept": 1e6, **dict.fromkeys(EXCHANGES, 1e6)}
        cells = [f"{said[n] / unit:.2f} / {found[n] / unit:.2f}" for n, unit in units.items()]
        lines.append((str(row["data"]), str(row["particle"]), str(row["fsdp"]), *cells))
    return aligned([HEADER, *lines])


if __name__ == "__main__":
    main(tyro.cli(Config))
