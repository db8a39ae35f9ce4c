"""The benchmark's command line: settings in, a report or JSON out."""

import json
import os
import sys
from typing import Any

from flax import nnx

from experiments.benchmark import flops
from experiments.benchmark.config import BenchmarkConfig
from experiments.benchmark.contest import measure
from experiments.benchmark.data import make_batches
from experiments.benchmark.models import build_model, use_device
from experiments.benchmark.report import report, table
from experiments.benchmark.sweep import sweep
from experiments.command_line import run_command


def main(config: BenchmarkConfig) -> dict[str, Any]:
    """Measures, prints, and returns the fields that ``--json`` prints.

    Raises:
      ValueError, FileNotFoundError: if settings are wrong, before anything is computed.
      ChildProcessError: if one of the processes ends.
    """
    # Contenders share a GPU: JAX takes memory as it needs it, in this process and its children.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    config.check()
    result = sweep(config) if config.sweep else compare(config)
    show = json.dumps if config.json else table if config.sweep else report
    print(show(result))
    return result


def compare(config: BenchmarkConfig) -> dict[str, Any]:
    """Returns the measurements of our task and, with ``against``, those of the other contender."""
    load, entries = os.getloadavg()[0], {"ours": config}
    if config.against is not None:
        entries[config.against] = config.contender()
    ours, *others = measure(entries, make_batches(config))
    result = {**config.problem(), **ours, **rates(config, ours), "load_average": load}
    if others:
        other = others[0]
        for name, field in (("times_as_fast", "median"), ("times_as_fast_at_best", "min")):
            result[name] = other["seconds"][field] / ours["seconds"][field]
        for name, field in (("memory", "resident"), ("device_memory", "device")):
            peaks = [each[f"peak_{field}_bytes"] for each in (ours, other)]
            result[f"share_of_{name}"] = peaks[0] / peaks[1] if all(peaks) else None
    return {**result, "against": others[0] if others else None}


def rates(config: BenchmarkConfig, ours: dict[str, Any]) -> dict[str, Any]:
    """Returns operations per repetition and their rate, beside that of a matrix product."""
    print("measuring the rate of matrix products", file=sys.stderr)
    use_device(config)
    case = config.model_case
    model = nnx.eval_shape(lambda: build_model(case, 1, config.seed))
    dims = {name: spec.dim for name, spec in case.modalities.items()}
    encode, decode = flops.forward_flops(
        config.task,
        encoders=sum(flops.network_flops(model.encoders[m], dim) for m, dim in dims.items()),
        decoders=sum(flops.network_flops(model.decoders[m], (case.network_dim,)) for m in dims),
        num_experts=len(dims),
        K=config.num_particles,
        batch=config.num_examples,
    )
    kind, share = ours["backward"], ours["backward_share"]
    total = flops.model_flops(encode, decode, backward=kind, share=share)
    rate = None if total is None else total / ours["seconds"]["median"]
    size = flops.product_size()
    product = flops.product_rate(size, config.dtype)
    return {
        "forward_flops": encode + decode,
        "model_flops": total,
        "flops_per_second": rate,
        "product_flops_per_second": product,
        "product_size": size,
        "product_fraction": None if rate is None else rate / product,
    }


if __name__ == "__main__":
    run_command(main, BenchmarkConfig, "experiments.benchmark")
