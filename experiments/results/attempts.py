"""Attempts at a command that is stopped and resumed: their commits and seconds."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

from experiments.runs import write_json

ATTEMPTS = "attempts.json"


class Attempts:
    """The commits and seconds of the attempts at a command, kept in a file.

    Attributes:
      commits: commit of each attempt.
      seconds: seconds of all attempts, but for those that were killed.
    """

    def __init__(self, folder: Path, *, is_continued: bool) -> None:
        """Reads the attempts that earlier calls have made, if their results are continued."""
        self._file = file = folder / ATTEMPTS
        earlier = json.loads(file.read_text()) if is_continued and file.exists() else {}
        self.commits: list[str] = earlier.get("commits", [])
        self.seconds: float = earlier.get("seconds", 0.0)

    @contextlib.contextmanager
    def one(self, commit: str) -> Iterator[None]:
        """Writes down an attempt, and its seconds when the block ends."""
        self.commits.append(commit)
        self._write()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start
            self._write()

    def _write(self) -> None:
        write_json(self._file, {"commits": self.commits, "seconds": self.seconds})
