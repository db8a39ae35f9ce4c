"""Contenders measured against each other, each in its own process."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from experiments.benchmark import host
from experiments.benchmark.config import Config
from experiments.benchmark.turns import Asked, Worker, means, spread, started, take_turns

Result = dict[str, Any]


class Entry(NamedTuple):
    """A contender (a key of ``worker.CONTENDERS``) with its settings, and what to call it."""

    label: str
    contender: str
    config: Config


def measure(
    entries: Sequence[Entry], repeats: int, *, memory_share: float | None = None
) -> list[Result]:
    """The measurements of each entry, whose repetitions are taken in turns.

    Args:
      entries: what to measure; they are set up one after the other.
      repeats: timed repetitions of each.
      memory_share: skip entries whose program needs more than this share of the memory that is
        left when it is compiled.

    Raises:
      WorkerError: if one of the processes ends on the way.
    """
    results: list[Result] = []
    with contextlib.ExitStack() as stack:
        running: list[tuple[Worker, Result]] = []
        for entry in entries:
            print(f"setting up {entry.label}", file=sys.stderr)
            own = contextlib.ExitStack()
            worker = stack.enter_context(own).enter_context(_started(entry))
            result: Result = {"name": entry.label, **worker.ready}
            results.append(result)
            available = result.pop("available_bytes", None)
            if memory_share is not None and result["temp_bytes"] > memory_share * available:
                result["skipped"] = _too_large(result["temp_bytes"], available, memory_share)
                own.close()
                continue
            worker.ask("prepare")
            running.append((worker, result))
        _time(running, repeats)
    return results


def _time(running: Sequence[tuple[Worker, Result]], repeats: int) -> None:
    """Add to each worker's result what its repetitions took."""
    workers = [worker for worker, _ in running]
    with _load_of_others(workers) as load:
        answers = take_turns(workers, repeats)
    for (worker, result), given in zip(running, answers, strict=True):
        seconds = [answer["seconds"] for answer in given]
        result["seconds"] = {**spread(seconds)._asdict(), "all": seconds}
        result["metrics"] = means([answer["metrics"] for answer in given])
        result["backward_share"] = _share(result)
        result["peak_resident_bytes"] = worker.ask("usage")["peak_resident_bytes"]
        result |= load


@contextlib.contextmanager
def _load_of_others(workers: Sequence[Asked]) -> Iterator[Result]:
    """After the block, the share of the cores that processes other than the workers have used.

    Threads that wait for each other, as torch's do after every loop, suffer most from it.
    """

    def seconds() -> tuple[float | None, float, float]:
        own = sum(worker.ask("usage")["process_seconds"] for worker in workers)
        return host.busy_seconds(), own, time.perf_counter()

    load: Result = {"load_of_others": None}
    busy, own, start = seconds()
    yield load
    busy_after, own_after, end = seconds()
    if busy is not None and busy_after is not None:
        others = (busy_after - busy) - (own_after - own)
        load["load_of_others"] = max(others / (end - start) / host.usable_cores(), 0.0)


def measure_rates(config: Config) -> Result:
    """What ``rates`` says."""
    print("measuring the rate of matrix products", file=sys.stderr)
    with _started(Entry("rates", "rates", config)) as worker:
        return worker.ready


def _started(entry: Entry) -> contextlib.AbstractContextManager[Worker]:
    command = [sys.executable, "-m", "experiments.benchmark.worker", entry.contender]
    cache = entry.config.compilation_cache
    environment = {
        "JAX_ENABLE_COMPILATION_CACHE": "false" if cache is None else "true",
        "JAX_TRACEBACK_FILTERING": "off",  # the last line of an error is the error
    }
    if cache is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache.absolute())
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
    if entry.config.against == "multivae":
        environment["JAX_PLATFORMS"] = "cpu"  # as MultiVae's worker
    return started(entry.label, [*command, entry.config.to_json()], environment)


def _share(result: Result) -> float | None:
    """Part of the particles that was back-propagated, where it is told."""
    if result.get("backward") == "dense":
        return 1.0
    return result["metrics"].get("backward_share")


def _too_large(needed: int, available: int, share: float) -> str:
    return (
        f"needs {needed / 1e9:.1f} GB of temporary memory, more than {share:.0%} of the "
        f"{available / 1e9:.1f} GB that are left"
    )
