"""One contender in a process of its own, driven line by line.

    python -m experiments.benchmark.worker CONTENDER CONFIG_JSON

Answers are lines of JSON on standard output: what the contender says when it is set up, then one
answer to each command on standard input. What libraries print goes to standard error. The process
ends with its input, or with an error.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TextIO

from experiments.benchmark import host
from experiments.benchmark.config import Config

Answer = dict[str, Any]

#: Where each contender's class is; a process imports its own alone.
CONTENDERS = {
    "ours": ("experiments.benchmark.ours", "Ours"),
    "dense": ("experiments.benchmark.ours", "Dense"),
    "multivae": ("experiments.benchmark.multivae", "MultiVae"),
    "rates": ("experiments.benchmark.rates", "Rates"),
}


class Contender(Protocol):
    """Made from a ``Config``, which sets it up as far as it can be without running."""

    def ready(self) -> Answer:
        """What is known before anything has run."""
        ...

    def prepare(self) -> Answer:
        """Do what comes before the first repetition."""
        ...

    def repeat(self) -> Answer:
        """One repetition: its ``seconds`` and ``metrics``."""
        ...


COMMANDS: dict[str, Callable[[Contender], Answer]] = {
    "prepare": lambda contender: contender.prepare(),
    "repeat": lambda contender: contender.repeat(),
    "usage": lambda _: {
        "peak_resident_bytes": host.peak_resident_bytes(),
        "process_seconds": time.process_time(),
    },
}


def serve(contender: Contender, commands: Iterable[str], answers: TextIO) -> None:
    """Say what is known, then obey commands until there are no more."""
    peak = {"ready_resident_bytes": host.peak_resident_bytes()}
    print(json.dumps(contender.ready() | peak), file=answers, flush=True)
    for command in commands:
        print(json.dumps(COMMANDS[command.strip()](contender)), file=answers, flush=True)


def main() -> None:
    """Serve the contender of the command line."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    module, name = CONTENDERS[sys.argv[1]]
    make = getattr(importlib.import_module(module), name)
    serve(make(Config.from_json(sys.argv[2])), sys.stdin, answers)


if __name__ == "__main__":
    main()
