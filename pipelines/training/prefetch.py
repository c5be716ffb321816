"""Prepares ahead, in a thread, what the next steps need. What is prepared is a function of its number alone, so that
preparing ahead changes nothing but the time."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

AHEAD = 2  # numbers beyond the one that is asked for

Made = TypeVar("Made")


class Prefetch(Generic[Made]):
    """``make(number)`` for numbers below ``end``, one at a time, in one thread."""

    def __init__(self, make: Callable[[int], Made], end: int):
        self._make, self._end = make, end
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._lock = threading.Lock()
        self._coming: dict[int, Future[Made]] = {}

    def get(self, number: int) -> Made:
        """Wait for ``make(number)``, and have those that follow prepared. Raises what ``make`` raised."""
        wanted = [number, *range(number + 1, min(number + 1 + AHEAD, self._end))]
        for stale in [other for other in self._coming if other not in wanted]:
            self._coming.pop(stale).cancel()
        for other in wanted:
            if other not in self._coming:
                self._coming[other] = self._thread.submit(self._make_locked, other)
        return self._coming.pop(number).result()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is made inside the block."""
        with self._lock:
            yield

    def _make_locked(self, number: int) -> Made:
        with self._lock:
            return self._make(number)
