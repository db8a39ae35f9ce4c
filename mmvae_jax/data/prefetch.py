"""Batches put on the device ahead of their use."""

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

S = TypeVar("S")
T = TypeVar("T")
S_co = TypeVar("S_co", covariant=True)


@runtime_checkable
class Resumable(Protocol[S_co]):
    """An iterator that can be told where to go on, as grain's can."""

    def __next__(self) -> S_co:
        """The next item."""
        ...

    def get_state(self) -> dict[str, Any]:
        """Where it is, as JSON can hold it."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from where it was."""
        ...

    def close(self) -> None:
        """Let go of threads and files."""
        ...


def prefetch_to_device(
    iterator: Resumable[S], place: Callable[[S], T], size: int = 2
) -> "Prefetch[T]":
    """Returns what ``place`` makes of the batches, computed up to ``size`` batches ahead.

    One thread gathers and places, while the caller trains::

        def place(arrays):
            return jax.device_put(as_batch(arrays), device)

        with prefetch_to_device(iter(batches(dataset, 128, seed=0)), place) as steps:
            for batch in steps:
                state, metrics = mm.train_step(state, batch)

    Args:
      iterator: of ``batches`` or ``eval_batches``, say; the prefetch owns it from now on.
      place: puts a batch on the device. It runs in the other thread, where the caller's
        ``jax.default_device`` and other contexts do not hold: name the device or sharding.
      size: batches to hold ready, apart from the one in use.

    Raises:
      ValueError: for a size less than 1.

    >>> from mmvae_jax.data.arrays import batches
    >>> of_steps = iter(batches(arrays, 2, seed=0, num_steps=3))
    >>> with prefetch_to_device(of_steps, lambda x: jax.device_put(dict(x.data))) as ahead:
    ...     next(ahead)["sound"].shape
    (2, 4)
    """
    if size < 1:
        raise ValueError(f"size={size}: choose 1 or more batches to hold ready")
    return Prefetch(iterator, place, size)


class Prefetch(Iterator[T], Generic[T]):
    """An iterator over placed batches; of ``prefetch_to_device``.

    An error of the iterator or of ``place`` comes up in place of the batch that it prevented;
    asking again tries that batch again. The thread ends with ``close()``, the ``with`` block, the
    last reference to the iterator, or the program.
    """

    # Grain's ThreadPrefetchIterDataset skips a batch after an error and counts one too few from
    # there on, and its thread prints a traceback where the program ends before the iterator does.

    def __init__(self, iterator: Resumable[S], place: Callable[[S], T], size: int):
        def fetch() -> tuple[T, dict[str, Any]]:
            batch = place(next(iterator))
            return batch, deepcopy(iterator.get_state())  # Some iterators change theirs in place.

        self._iterator, self._fetch, self._size = iterator, fetch, size
        self._state = deepcopy(iterator.get_state())
        # The executor joins its thread before the interpreter, and with it JAX, is taken down.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._ahead: deque[Future[tuple[T, dict[str, Any]]]] = deque()
        self._stop = weakref.finalize(self, _stop, self._worker, self._ahead)

    def __next__(self) -> T:
        if not self._stop.alive:
            raise ValueError("the prefetch is closed: make another one to go on")
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
        """Returns the state of the iterator after the last batch handed out, as JSON can hold it.

        What was fetched ahead does not count: it is fetched again by who goes on from there.
        """
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a state of ``get_state``, with nothing fetched ahead."""
        _cancel(self._ahead)
        self._worker.submit(self._iterator.set_state, state).result()  # After the batch in work.
        self._state = state

    def close(self) -> None:
        """Ends the thread, as soon as the batch in work is done, and the iterator."""
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
    worker.shutdown(wait=False)  # It may be the worker that collects the garbage.


def _cancel(ahead: deque[Future[Any]]) -> None:
    for future in ahead:
        future.cancel()
    ahead.clear()
