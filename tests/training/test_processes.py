"""Two real processes on one machine train as one does, and neither waits for a dead one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "tests" / "helpers" / "one_of_several.py"


def start(out: Path, num_steps: int, num_processes: int = 1) -> list[subprocess.Popen]:
    """All processes of a run, with four devices together."""
    out.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count={4 // num_processes}"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "XLA_FLAGS": f"{flags} --xla_backend_optimization_level=0",
    }
    processes = []
    for number in range(num_processes):
        command = [sys.executable, str(WORKER), str(out), str(num_steps)]
        if num_processes > 1:
            command += [str(num_processes), str(number), str(port)]
        pipe = subprocess.PIPE
        processes.append(
            subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)
        )
    return processes


def finish(processes: list[subprocess.Popen]) -> str:
    """What the first of them printed, once all have ended well."""
    outputs = [process.communicate(timeout=240) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    return outputs[0][0]


def history(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def saved_steps(out: Path) -> list[int]:
    folder = out / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> tuple[Path, str]:
    """A run of one process."""
    out = tmp_path_factory.mktemp("alone")
    return out, finish(start(out, 40))


def assert_close(given: list[dict], expected: list[dict]) -> None:
    assert [row["step"] for row in given] == [row["step"] for row in expected]
    for row, other in zip(given, expected, strict=True):
        assert row.keys() == other.keys()
        for name in row:
            np.testing.assert_allclose(row[name], other[name], rtol=2e-3, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_two_processes_train_as_one(alone, tmp_path):
    expected, printed = alone
    out = tmp_path / "run"
    together = finish(start(out, 40, num_processes=2))
    totals = [float(text.split("finished ")[1]) for text in (together, printed)]
    np.testing.assert_allclose(totals[0], totals[1], rtol=1e-4)  # of all encoders' parameters
    assert_close(history(out), history(expected))
    # The joint checkpoint is one that a single process can take up, and the other way round.
    finish(start(out, 45))
    assert saved_steps(out)[-1] == 45


@pytest.mark.slow
def test_a_lost_process_ends_the_other_and_both_go_on(alone, tmp_path):
    expected, _ = alone
    out = tmp_path / "run"
    processes = start(out, 100_000, num_processes=2)
    while len(saved_steps(out)) < 2:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    printed, errors = processes[0].communicate(timeout=60)
    assert time.monotonic() - killed < 20
    # Whichever comes first: our error at the next step, or the end that JAX makes of the process.
    if processes[0].returncode == 3:
        assert "process 0 of 2 cannot continue, probably because another one has ended" in printed
        assert "start all of them again with resume=True to resume from the checkpoints" in printed
    else:
        assert processes[0].returncode == -signal.SIGABRT, errors
        assert "This most likely indicates that another task died" in errors
    processes[1].communicate()
    newest = saved_steps(out)[-1]
    finish(start(out, newest + 10, num_processes=2))
    reached = history(out)
    assert [row["step"] for row in reached] == list(range(5, newest + 11, 5))
    common = [row for row in reached if row["step"] <= 40]
    assert_close(common, history(expected)[: len(common)])


@pytest.mark.slow
def test_sigterm_to_one_process_ends_all_at_one_step(tmp_path):
    out = tmp_path / "run"
    processes = start(out, 100_000, num_processes=2)
    while len(saved_steps(out)) < 2:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)
    processes[1].terminate()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [75, 75], outputs
    newest = saved_steps(out)[-1]
    finish(start(out, newest + 5))
    assert saved_steps(out)[-1] == newest + 5
