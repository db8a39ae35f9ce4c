"""Batches prepared and put on the device by a thread, ahead of their use."""

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from mmvae_jax.checks import check_count

S = TypeVar("S")
T = TypeVar("T")
S_co = TypeVar("S_co", covariant=True)


@runtime_checkable
class Resumable(Protocol[S_co]):
    """An iterator whose state can be saved and restored, such as grain's iterators."""

    def __next__(self) -> S_co:
        """Returns the next item."""
        ...

    def get_state(self) -> dict[str, Any]:
        """Returns the position as a JSON-serialisable dict."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to a position returned by ``get_state``."""
        ...

    def close(self) -> None:
        """Releases threads and files."""
        ...


def prefetch_to_device(
    iterator: Resumable[S], place: Callable[[S], T], size: int = 2
) -> "Prefetch[T]":
    """Returns an iterator over ``place(batch)``, computed up to ``size`` batches ahead.

    One thread gathers and places batches while the caller trains::

        def place(arrays):
            return jax.device_put(mm.Batch(arrays.data, arrays.mask), device)

        with prefetch_to_device(iter(batches(dataset, 128, seed=0)), place) as steps:
            for batch in steps:
                state, metrics = mm.train_step(state, batch)

    Args:
      iterator: iterator over batches, for instance of ``batches`` or ``eval_batches``. The prefetch
        takes ownership of it.
      place: function that puts a batch on the device. It runs in another thread, outside the
        caller's ``jax.default_device`` and other contexts, so name the device or sharding.
      size: number of batches to hold ready, in addition to the one in use.

    Raises:
      ValueError: if ``size`` is less than 1.

    >>> from mmvae_jax.data import batches, prefetch_to_device
    >>> iterator = iter(batches(arrays, 2, seed=0, num_steps=3))
    >>> with prefetch_to_device(iterator, lambda x: jax.device_put(dict(x.data))) as ahead:
    ...     next(ahead)["sound"].shape
    (2, 4)
    """
    size = check_count("size", size)
    return Prefetch(iterator, place, size)


class Prefetch(Iterator[T], Generic[T]):
    """An iterator over placed batches, made by ``prefetch_to_device``.

    An error of the iterator or of ``place`` is raised in the position of its batch, and the next
    call tries that batch again. The thread ends with ``close()``, the ``with`` block, the last
    reference to the iterator, or the program.
    """

    # Not grain.experimental.device_put (grain 0.2.18): where placing a batch raises an error, its
    # thread continues with the batch after it, and its state counts one batch too few from there
    # on. A program that ends before the iterator also prints a traceback of the thread.

    def __init__(self, iterator: Resumable[S], place: Callable[[S], T], size: int):
        def fetch() -> tuple[T, dict[str, Any]]:
            batch = place(next(iterator))
            return batch, deepcopy(iterator.get_state())  # Some iterators update it in place.

        self._iterator, self._fetch, self._size = iterator, fetch, size
        self._state = deepcopy(iterator.get_state())
        # At exit, the executor joins its thread before the interpreter shuts down JAX.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._ahead: deque[Future[tuple[T, dict[str, Any]]]] = deque()
        self._stop = weakref.finalize(self, _stop, self._worker, self._ahead)

    def __next__(self) -> T:
        if not self._stop.alive:
            raise ValueError("the prefetch is closed: make another one")
        self._fill()
        try:
            batch, self._state = self._ahead[0].result()
        except Exception:
            self.set_state(self._state)
            raise
        self._ahead.popleft()
        self._fill()
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns the state of the iterator after the last batch handed out.

        Batches fetched ahead do not count; whoever resumes from the state fetches them again.
        """
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to a state of ``get_state`` and discards what was fetched ahead."""
        _cancel(self._ahead)
        self._worker.submit(self._iterator.set_state, state).result()  # After the current batch.
        self._state = state

    def close(self) -> None:
        """Ends the thread, after its current batch, and closes the iterator."""
        self._stop()
        self._worker.shutdown()
        self._iterator.close()

    def __enter__(self) -> "Prefetch[T]":
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _fill(self) -> None:
        while len(self._ahead) < self._size:
            self._ahead.append(self._worker.submit(self._fetch))


def _stop(worker: ThreadPoolExecutor, ahead: deque[Future[Any]]) -> None:
    _cancel(ahead)
    worker.shutdown(wait=False)  # Garbage collection may run in the worker itself.


def _cancel(ahead: deque[Future[Any]]) -> None:
    for future in ahead:
        future.cancel()
    ahead.clear()
