"""Contenders in processes of their own, timed in turns on the same batches.

Turns spread whatever slows the machine down over all contenders. MultiVae's process imports this
module, so it imports neither JAX nor torch.
"""

import contextlib
import importlib
import multiprocessing
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from tqdm import tqdm

from experiments.benchmark import host
from experiments.benchmark.config import BenchmarkConfig

Result = dict[str, Any]

OURS, MULTIVAE = "experiments.benchmark.ours:Ours", "experiments.benchmark.multivae:MultiVae"
NUM_WARM_UP = 2


class Worker:
    """A process that sets a contender up and runs the batches that it is sent.

    Args:
      name: name of the contender in messages.
      contender: module and class, as ``"module:Class"``. Its objects are made from the config;
        ``describe`` returns what is known before the first repetition, and ``repeat`` runs a batch
        and returns its ``seconds`` and ``metrics``, and ``peak_device_bytes`` on a GPU.
      config: settings of the contender.

    Attributes:
      description: what ``describe`` returned, and the memory of the process.
    """

    def __init__(self, name: str, contender: str, config: Any):
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, contender, config))
        self._process.start()
        theirs.close()  # the only other end, so that ``recv`` fails when the process ends
        self.description = self._receive()

    def repeat(self, images: Mapping[str, Any]) -> Result:
        """Returns the measurements of one batch.

        Raises:
          ChildProcessError: if the process has ended; its traceback is on stderr.
        """
        with contextlib.suppress(BrokenPipeError):  # ``_receive`` reports it
            self._connection.send(images)
        return self._receive()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.join()

    def _receive(self) -> Result:
        try:
            return self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            hint = ", perhaps for lack of memory" if code == -9 else ""
            raise ChildProcessError(f"{self.name} ended with exit code {code}{hint}") from None


def _serve(connection: Connection, contender: str, config: Any) -> None:
    """Body of a worker's process."""
    os.dup2(2, 1)  # libraries print to stderr, because stdout is for the report
    module, name = contender.split(":")
    entrant = getattr(importlib.import_module(module), name)(config)
    connection.send({**entrant.describe(), "ready_resident_bytes": host.peak_resident_bytes()})
    while True:
        measured = entrant.repeat(connection.recv())
        connection.send({**measured, "peak_resident_bytes": host.peak_resident_bytes()})


def measure(
    entries: Mapping[str, BenchmarkConfig],
    batches: Iterator[Mapping[str, Any]],
    *,
    memory_share: float | None = None,
) -> list[Result]:
    """Returns the measurements of each contender, whose repetitions are taken in turns.

    Args:
      entries: settings by contender: "multivae", or any name for our own.
      batches: images by modality; every turn takes one.
      memory_share: leaves out programs that need more than this share of the memory.

    Raises:
      ChildProcessError: if one of the processes ends.
    """
    results: list[Result] = []
    with contextlib.ExitStack() as stack:
        workers: list[Worker] = []
        for name, config in entries.items():
            print(f"setting up {name}", file=sys.stderr)
            worker = Worker(name, MULTIVAE if name == "multivae" else OURS, config)
            stack.callback(worker.close)
            result = {"name": name, **worker.description}
            limit = (memory_share or 1) * result.pop("memory_bytes", 0)
            if memory_share is not None and result["temp_bytes"] > limit:
                print(f"{name} needs more than {limit / 1e9:.1f} GB: skipped", file=sys.stderr)
                continue
            for _ in range(0 if name == "multivae" else config.train_steps):
                worker.repeat(next(batches))
            workers.append(worker)
            results.append(result)
        measured = take_turns(workers, batches, max(c.repeats for c in entries.values()))
    return [result | summarize(each) for result, each in zip(results, measured, strict=True)]


def take_turns(
    workers: Sequence[Worker], batches: Iterator[Mapping[str, Any]], repeats: int
) -> list[list[Result]]:
    """Returns the measurements of each worker, one repetition at a time: a, b, a, b, ...

    ``NUM_WARM_UP`` repetitions of each come before the first that counts.
    """
    measured: list[list[Result]] = [[] for _ in workers]
    turns = range(NUM_WARM_UP + repeats)
    for _ in tqdm(turns, desc="repetitions", leave=False, disable=not sys.stderr.isatty()):
        images = next(batches)
        for worker, each in zip(workers, measured, strict=True):
            each.append(worker.repeat(images))
    return [each[NUM_WARM_UP:] for each in measured]


def summarize(measured: Sequence[Result]) -> Result:
    """Returns spread of the seconds, means of the metrics and peak memory of repetitions."""
    seconds = [each["seconds"] for each in measured]
    spread = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
    names = measured[0]["metrics"]
    metrics = {name: statistics.fmean(each["metrics"][name] for each in measured) for name in names}
    return {
        "seconds": {**spread, "all": seconds},
        "metrics": metrics,
        "backward_share": metrics.get("backward_share"),
        "peak_resident_bytes": measured[-1]["peak_resident_bytes"],
        "peak_device_bytes": measured[-1].get("peak_device_bytes"),
    }
