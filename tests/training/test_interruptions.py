"""The digits experiment, killed again and again, ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
NUM_KILLS = 20
ARGS = (
    "--modalities 2 --hidden 64 --latent-dim 4 --K 3 --pairings 2 --num-steps 400 --log-every 5 "
    "--save-every 10 --num-samples 50 --missing 0.3"
)


def start(out: Path, cache: Path, *args: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments.digits", *ARGS.split(), "--out", str(out), *args]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(cache)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def finish(out: Path, cache: Path, *args: str) -> None:
    process = start(out, cache, *args)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, Path]:
    """A run left alone, and the programs that it compiled."""
    folder = tmp_path_factory.mktemp("runs")
    finish(folder / "run", folder / "cache")
    return folder / "run", folder / "cache"


def arrays(out: Path) -> dict[str, bytes]:
    """All arrays of the last checkpoint: parameters, optimizer, key and step."""
    import jax

    from experiments import digits
    from mmvae_jax.training.checkpoint import Checkpoints
    from mmvae_jax.training.run_settings import read_settings

    config = digits.DigitsConfig(
        modalities=2, hidden=(64,), latent_dim=4, K=3, pairings=2, num_steps=400, missing=0.3
    )
    state = config.init_state(*jax.random.split(jax.random.key(0)), 400)
    folder = out / "checkpoints"
    state = Checkpoints(folder, config=read_settings(folder)).restore(state)
    assert int(state.step) == 400
    state = state.replace(key=jax.random.key_data(state.key))
    leaves = jax.tree.leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(x).tobytes() for path, x in leaves}


def newest_step(out: Path) -> int:
    folder = out / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=-1)


def resume_args(out: Path) -> list[str]:
    """A run that was killed before its first checkpoint is started anew."""
    if newest_step(out) >= 0:
        return ["--resume"]
    for path in sorted(out.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    return []


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_bit_for_bit(undisturbed, tmp_path):
    expected, cache = undisturbed
    out = tmp_path / "run"
    clock = random.Random(0)
    kills = 0
    while kills < NUM_KILLS:
        before = newest_step(out)
        process = start(out, cache, *resume_args(out))
        # Anywhere between the first new checkpoint, or a little before, and two more.
        while newest_step(out) <= before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(clock.uniform(0.0, 0.08))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
        kills += 1
    finish(out, cache, *resume_args(out))
    assert arrays(out) == arrays(expected)
    histories = [(folder / "history.jsonl").read_bytes() for folder in (out, expected)]
    assert histories[0] == histories[1]


@pytest.mark.slow
def test_sigterm_saves_and_ends_with_its_own_code(undisturbed, tmp_path):
    expected, cache = undisturbed
    out = tmp_path / "run"
    process = start(out, cache)
    while newest_step(out) < 20 and process.poll() is None:
        time.sleep(0.005)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "preempted by SIGTERM at step" in errors
    assert "Traceback" not in errors
    finish(out, cache, "--resume")
    assert arrays(out) == arrays(expected)
