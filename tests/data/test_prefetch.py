"""Prefetching changes only when batches are made."""

import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import chex
import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmvae_jax.data import MultimodalArrays, batches, eval_batches, prefetch_to_device
from mmvae_jax.data.batching import pipeline

NUM_STEPS = 9


def numbers(fetch: Callable[[int], int] = lambda i: i) -> grain.DatasetIterator[int]:
    return iter(pipeline(fetch, range(NUM_STEPS)))


def wait_until(is_true: Callable[[], bool], seconds: float = 5) -> bool:
    """Waits until a condition holds, and returns False if the (generous) time runs out."""
    end = time.monotonic() + seconds
    while not is_true() and time.monotonic() < end:
        time.sleep(0.005)
    return is_true()


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())  # Threads of other tests, which may end meanwhile.
    yield
    gc.collect()
    assert wait_until(lambda: set(threading.enumerate()) <= before), threading.enumerate()


def test_the_device_gets_the_same_batches_as_bytes():
    rng = np.random.default_rng(0)
    dataset = MultimodalArrays(
        {"image": rng.integers(0, 256, (20, 4, 4, 3), np.uint8)}, labels=np.arange(20)
    )
    pipeline = batches(dataset, 6, seed=0, num_steps=NUM_STEPS)
    with prefetch_to_device(iter(pipeline), jax.device_put) as steps:
        placed = list(steps)
    assert all(isinstance(batch.data["image"], jax.Array) for batch in placed)
    assert all(batch.data["image"].dtype == jnp.uint8 for batch in placed)
    assert placed[0].mask is None
    chex.assert_trees_all_equal(
        [(batch.data, batch.labels) for batch in jax.device_get(placed)],
        [(batch.data, batch.labels.astype(np.int32)) for batch in pipeline],
    )


def test_evaluation_batches_can_be_prefetched():
    steps = eval_batches(MultimodalArrays({"x": np.arange(5.0)}), 2)
    with prefetch_to_device(iter(steps), lambda batch: batch.weight.sum()) as weights:
        assert list(weights) == [2, 2, 1]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_it_keeps_size_batches_ahead_and_no_more(size):
    placed = []
    with prefetch_to_device(numbers(), placed.append, size) as steps:
        assert placed == []  # Nothing is fetched before the first batch is asked for.
        for taken in range(1, NUM_STEPS + 1):
            next(steps)
            due = min(taken + size, NUM_STEPS)
            assert wait_until(lambda due=due: len(placed) >= due)
            time.sleep(0.01)  # Time in which it could run further ahead.
            assert placed == list(range(due))


def test_gathering_and_placing_happen_in_one_other_thread():
    threads = []

    def note(i: int) -> int:
        threads.append(threading.current_thread())
        return i

    with prefetch_to_device(numbers(note), note) as steps:
        list(steps)
    assert len(threads) == 2 * NUM_STEPS
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()


def test_the_state_is_that_of_the_last_batch_handed_out():
    with prefetch_to_device(numbers(), lambda i: i, size=3) as steps:
        states = [steps.get_state()]
        for _ in steps:
            states.append(json.loads(json.dumps(steps.get_state())))
    plain = numbers()
    for taken, state in enumerate(states):
        plain.set_state(state)
        assert list(plain) == list(range(taken, NUM_STEPS))


@pytest.mark.parametrize("num_taken", [0, 1, 5, NUM_STEPS])
def test_a_restored_state_resumes(num_taken):
    with prefetch_to_device(numbers(), lambda i: i) as steps:
        for _ in range(num_taken):
            next(steps)
        state = steps.get_state()
        assert list(steps) == list(range(num_taken, NUM_STEPS))
        steps.set_state(state)
        assert steps.get_state() == state
        assert list(steps) == list(range(num_taken, NUM_STEPS))
    with prefetch_to_device(numbers(), lambda i: i) as restored:
        restored.set_state(state)
        assert list(restored) == list(range(num_taken, NUM_STEPS))


def test_the_end_stays_the_end():
    with prefetch_to_device(numbers(), lambda i: i) as steps:
        assert list(steps) == list(range(NUM_STEPS))
        assert list(steps) == []


@pytest.mark.parametrize("where", ["gather", "place"])
def test_an_error_comes_in_place_of_its_batch_which_can_be_tried_again(where):
    is_broken = True

    def fail_at_four(i: int) -> int:
        if i == 4 and is_broken:
            raise OSError("no batch 4")
        return i

    stages = [fail_at_four, lambda i: i]
    gather, place = stages if where == "gather" else reversed(stages)
    with prefetch_to_device(numbers(gather), place) as steps:
        assert [next(steps) for _ in range(4)] == [0, 1, 2, 3]
        state = steps.get_state()
        for _ in range(3):
            with pytest.raises(OSError, match="no batch 4"):
                next(steps)
            assert steps.get_state() == state
        is_broken = False
        assert list(steps) == [4, 5, 6, 7, 8]


def test_a_closed_prefetch_fetches_no_more():
    placed = []
    steps = prefetch_to_device(numbers(), placed.append)
    next(steps)
    steps.close()
    num_placed = len(placed)
    steps.close()
    with pytest.raises(ValueError, match="the prefetch is closed"):
        next(steps)
    time.sleep(0.02)
    assert len(placed) == num_placed < NUM_STEPS


def num_threads() -> int:
    """Counts threads of prefetches; threads of other tests may end at any time."""
    return sum(thread.name.startswith("prefetch") for thread in threading.enumerate())


@pytest.mark.parametrize("num_taken", [1, NUM_STEPS + 1])
def test_the_thread_ends_with_the_last_reference(num_taken):
    """No garbage collection is needed, even after the last batch."""
    before = num_threads()
    gc.disable()
    try:
        steps = prefetch_to_device(numbers(), lambda i: i)
        for _ in range(num_taken):
            next(steps, None)
        assert num_threads() == before + 1
        del steps
        assert wait_until(lambda: num_threads() == before)
    finally:
        gc.enable()


@pytest.mark.slow
def test_a_program_can_end_in_the_middle():
    program = """if True:
        import time, jax, numpy as np
        from mmvae_jax.data import MultimodalArrays, batches, prefetch_to_device

        def place(batch):
            time.sleep(0.05)
            return jax.device_put(batch.data)

        dataset = MultimodalArrays({"x": np.zeros((64, 1000))})
        steps = prefetch_to_device(iter(batches(dataset, 32, seed=0)), place)
        next(steps)
        steps.itself = steps
    """
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_size_of_nothing_is_refused():
    with pytest.raises(ValueError, match="size is 0"):
        prefetch_to_device(numbers(), lambda i: i, size=0)
