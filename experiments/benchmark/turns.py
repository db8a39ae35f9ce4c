"""Worker processes, asked in turns, so that what slows the machine down slows all of them."""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from tqdm import tqdm

ROOT = Path(__file__).parents[2]
NUM_WARM_UP = 2

Answer = dict[str, Any]


class WorkerError(RuntimeError):
    """A worker that ended before it was told to.

    Attributes:
      log: all that it wrote to standard error.
    """

    def __init__(self, message: str, log: str):
        super().__init__(message)
        self.log = log


class Asked(Protocol):
    """Whatever answers to commands."""

    def ask(self, command: str) -> Answer:
        """The answer to a command."""
        ...


class Worker:
    """A process that answers lines with lines of JSON, see ``worker``.

    Attributes:
      name: what errors call it.
      ready: its first answer, given without being asked.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], errors: IO[str]):
        self.name = name
        self._process = process
        self._errors = errors
        self.ready = self._answer()

    def ask(self, command: str) -> Answer:
        """The answer to a command.

        Raises:
          WorkerError: if the process has ended.
        """
        assert self._process.stdin is not None, "it is a pipe"
        with contextlib.suppress(BrokenPipeError):  # the answer says that it has ended, and why
            self._process.stdin.write(f"{command}\n".encode())
        return self._answer()

    def _answer(self) -> Answer:
        assert self._process.stdout is not None, "it is a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise self._death()
        return json.loads(line)

    def _death(self) -> WorkerError:
        code = self._process.wait()
        self._errors.seek(0)
        log = self._errors.read()
        last = next((line for line in reversed(log.splitlines()) if line.strip()), "no message")
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        if -code == signal.SIGKILL:
            how += ", as one that is out of memory"
        return WorkerError(f"{self.name} {how}: {last.strip()}", log)


@contextlib.contextmanager
def started(
    name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[Worker]:
    """A worker that is set up, and gone at the end of the block.

    Raises:
      WorkerError: if it ends on the way.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": path, **(environment or {})},
            bufsize=0,  # nothing is left to write when the worker has gone
        ) as process,
    ):
        try:
            yield Worker(name, process, errors)
        finally:
            process.kill()


def take_turns(
    workers: Sequence[Asked], repeats: int, num_warm_up: int = NUM_WARM_UP
) -> list[list[Answer]]:
    """The answers of each worker to ``repeats`` repetitions, one at a time: a, b, a, b, ...

    The first ``num_warm_up`` answers of each are dropped.
    """
    answers: list[list[Answer]] = [[] for _ in workers]
    turns = range(num_warm_up + repeats)
    for _ in tqdm(turns, desc="repetitions", leave=False, disable=not sys.stderr.isatty()):
        for worker, given in zip(workers, answers, strict=True):
            given.append(worker.ask("repeat"))
    return [given[num_warm_up:] for given in answers]


class Spread(NamedTuple):
    """Seconds of several repetitions."""

    median: float
    min: float
    max: float


def spread(seconds: Sequence[float]) -> Spread:
    """Median, smallest and largest; of an even number, the median is between the middle two."""
    return Spread(statistics.median(seconds), min(seconds), max(seconds))


def means(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric."""
    return {name: statistics.fmean(each[name] for each in metrics) for name in metrics[0]}
