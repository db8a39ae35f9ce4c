"""The command line: settings, then a report or JSON on standard output."""

import json
import sys
from typing import Any

import tyro

from experiments.benchmark.config import Config
from experiments.benchmark.contest import Entry, measure, measure_rates
from experiments.benchmark.flops import forward_flops, model_flops
from experiments.benchmark.report import report
from experiments.benchmark.sweep import sweep, table
from experiments.benchmark.turns import WorkerError


def main(config: Config) -> dict[str, Any]:
    """Measure, print, and return what ``--json`` prints.

    Raises:
      ValueError: if the settings are wrong, before anything is computed.
      WorkerError: if one of the processes ends on the way.
    """
    config.check()
    result = sweep(config) if config.sweep else contest(config)
    show = json.dumps if config.json else table if config.sweep else report
    print(show(result))
    return result


def contest(config: Config) -> dict[str, Any]:
    """Ours, and what it is held against, with the rates that our time means."""
    entries = [Entry("ours", "ours", config)]
    if config.against is not None:
        entries.append(Entry(config.against, config.against, config))
    ours, *others = measure(entries, config.repeats)
    other = others[0] if others else None
    result = {
        **config.described(),
        **ours,
        **rates(config, ours),
        "against": other,
    }
    if other is not None:
        times, other_times = ours["seconds"], other["seconds"]
        result["times_as_fast"] = other_times["median"] / times["median"]
        result["times_as_fast_at_best"] = other_times["min"] / times["min"]
        result["share_of_memory"] = ours["peak_resident_bytes"] / other["peak_resident_bytes"]
    return result


def rates(config: Config, ours: dict[str, Any]) -> dict[str, Any]:
    """Operations of a repetition, and how their rate compares with that of a matrix product."""
    measured = measure_rates(config)
    encode, decode = forward_flops(
        config.task,
        encoders=measured["encoder_flops"],
        decoders=measured["decoder_flops"],
        num_experts=len(config.model_case.modalities),
        K=config.num_particles,
        batch=config.num_examples,
    )
    flops = model_flops(encode, decode, backward=ours["backward"], share=ours["backward_share"])
    rate = None if flops is None else flops / ours["seconds"]["median"]
    product = measured["product_flops_per_second"]
    return {
        "forward_flops": encode + decode,
        "model_flops": flops,
        "flops_per_second": rate,
        "product_flops_per_second": product,
        "product_size": measured["product_size"],
        "product_fraction": None if rate is None else rate / product,
    }


def command_line() -> None:
    """``main`` of the command line's settings; what is wrong with them is said without a trace."""
    config = tyro.cli(Config, prog="python -m experiments.benchmark")
    try:
        main(config)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except WorkerError as error:
        print(error.log, f"error: {error}", sep="\n", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    command_line()
