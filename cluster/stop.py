"""Stopping what runs in other threads: the pools of a run, when a step failed or the user pressed Ctrl-C."""

import threading
from typing import Any

_thread = threading.local()  # .stop: the Stop of the pool that this thread is starting


class StoppedError(Exception):
    """The run is being stopped; never the reason why."""


class Stop:
    """Set once, by any thread. It shuts down the pools of all threads that called ``watch``; they start no other."""

    def __init__(self) -> None:
        self._is_set = threading.Event()
        self._lock = threading.Lock()
        self._executors: list[Any] = []

    @property
    def is_set(self) -> bool:
        """Whether the run is being stopped."""
        return self._is_set.is_set()

    def set(self) -> None:
        """Shut down all pools: units under way are lost, receipts stay."""
        with self._lock:
            self._is_set.set()
            executors, self._executors = self._executors, []
        for executor in executors:
            executor.shutdown(force=True)

    def check(self) -> None:
        """Raise StoppedError once the run is being stopped."""
        if self.is_set:
            raise StoppedError

    def watch(self) -> None:
        """Let ``set`` shut down each pool that this thread starts from now on."""
        _thread.stop = self

    def add(self, executor: Any) -> None:
        """Take note of a pool's executor."""
        with self._lock:
            if not self.is_set:
                self._executors.append(executor)
                return
        executor.shutdown(force=True)

    def remove(self, executor: Any) -> None:
        """Forget an executor that has ended."""
        with self._lock:
            if executor in self._executors:
                self._executors.remove(executor)


class ExecutorWatch:
    """Ray Data's ``ExecutionCallback``: tells the thread's ``Stop`` of each executor that starts and ends in it."""

    def before_execution_starts(self, executor: Any) -> None:
        """Called by the thread that iterates over the dataset."""
        self.stop: Stop | None = getattr(_thread, "stop", None)
        if self.stop:
            self.stop.add(executor)

    def on_execution_step(self, executor: Any) -> None:
        """Nothing to do."""

    def after_execution_succeeds(self, executor: Any) -> None:
        """Forget the executor."""
        if self.stop:
            self.stop.remove(executor)

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Forget the executor."""
        self.after_execution_succeeds(executor)
