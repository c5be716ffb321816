"""Units of work on Ray Data: each unit is done once, wherever the cluster has room.

A ``Crew`` streams the units that have no receipt through a pool of workers and yields their receipts as they come.
Tasks that share a key share what was built for them: seven languages are encoded with one load of the model. A unit
whose disk or store fails for a moment is done again; a unit that kills its worker three times fails the run, while one
that is lost with its node is done again elsewhere and not held against it.

Workers without accelerators are processes for Ray's tasks, which it keeps from one pool to the next: what they imported
stays imported, and sentence-transformers takes seconds; what they built is given up soon. With accelerators, or in a
runtime environment, they are an autoscaling pool of actors, which end with the pool and give the device's memory back.

Ray Data keeps the number of workers that a stream began with. More workers that come later are a stream of their own,
which begins with the last units.
"""

import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from cluster import session
from cluster.component import Resources
from cluster.errors import LeaseLostError, StepError
from cluster.receipt import Receipt
from cluster.runner import DRIVER_MARK, Runner, run_unit
from cluster.stop import Stop
from cluster.tasks import Task

ERROR = "error.txt"  # beside the receipts: the trace of the unit that failed last

log = logging.getLogger("babelray")


@dataclass(frozen=True)
class Pool:
    """How units are done: what a worker takes, how many workers to begin with and at most, in which runtime environment
    (Ray's ``runtime_env``), how the user learns of waiting, what stops it."""

    resources: Resources
    actors: tuple[int, int]
    environment: Mapping[str, Any] | None
    say: Callable[[str], None]
    stop: Stop


class Crew:
    """The workers that do all units of ``tasks`` that are not in ``done``: those that it begins with, and helpers."""

    def __init__(self, tasks: Sequence[Task], done: Sequence[set[int]], pool: Pool):
        self.tasks, self.pool = tasks, pool
        self.todo = list_units(tasks, done)
        self.run = f"runs/{uuid.uuid4().hex}"
        self.receipts: dict[tuple[int, int], Receipt] = {}  # by the task's number and the unit
        self._from_helpers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._is_begun = threading.Event()  # the mark is there, which workers look for

    @property
    def names(self) -> str:
        """The names of the steps."""
        return ", ".join(sorted({self.tasks[row["task"]].name for row in self.todo}))

    def perform(self) -> Iterator[tuple[int, Receipt]]:
        """Do the units and yield (task's number, receipt) as they finish.

        Raises:
            StepError: a unit raised, or no worker can ever have its resources; the others' receipts are kept.
            LeaseLostError: another driver makes one of the artifacts.
            StoppedError: the run is being stopped.
        """
        if not self.todo:
            return
        for number in {row["task"] for row in self.todo}:
            (self.tasks[number].receipts / self.run / DRIVER_MARK).write(b"")
        session.connect()
        self._is_begun.set()
        from ray.exceptions import RayError

        granted, most = self.pool.actors
        room = _room(self.names, self.pool.resources, self.pool.say)
        initial = max(1, min(len(self.todo), granted, most, room))
        try:
            for row in self._stream(self.todo, initial, max(initial, min(most, len(self.todo)))):
                yield from self._take_from_helpers()
                yield from self._take(row)
        except RayError as error:
            self.pool.stop.check()
            raise StepError(_explain(self.names, str(error))) from error
        self.pool.stop.check()

    def count_waiting(self, workers: int) -> int:
        """How many units wait where so many workers do one each."""
        return max(0, len(self.todo) - len(self.receipts) - workers)

    def help(self, workers: int) -> None:
        """Let more workers do units that nobody has begun, the last ones first, while ``perform`` runs in its thread.

        What stops them stops nothing else: ``perform`` comes to each unit that they left.
        """
        threading.Thread(target=self._help, args=(workers,), daemon=True, name=f"helpers {self.names}").start()

    def _help(self, workers: int) -> None:
        todo = [row | {"helps": True} for row in reversed(self.todo)]
        self._is_begun.wait()
        try:
            for row in self._stream(todo, workers, workers):
                self._from_helpers.put(row)
        except Exception as error:
            log.debug("helpers of %s: %s", self.names, error)

    def _take_from_helpers(self) -> Iterator[tuple[int, Receipt]]:
        while True:
            try:
                row = self._from_helpers.get_nowait()
            except Empty:
                return
            if row["receipt"]:
                yield from self._take(row)

    def _take(self, row: Mapping[str, Any]) -> Iterator[tuple[int, Receipt]]:
        """Yield the receipt of a worker's answer, once for each unit."""
        number, unit = int(row["task"]), int(row["unit"])
        if (number, unit) in self.receipts:
            return
        if row["is_lost"]:
            raise LeaseLostError(row["error"])
        if row["error"]:
            task = self.tasks[number]
            (task.receipts / ERROR).write(row["trace"].encode())
            trace = f"The trace is in {(task.receipts / ERROR).redacted}"
            raise StepError(_explain(task.name, f"{row['error']}\n{trace}"))
        self.receipts[number, unit] = Receipt.model_validate_json(row["receipt"])
        yield number, self.receipts[number, unit]

    def _stream(self, todo: Sequence[Mapping[str, Any]], initial: int, most: int) -> Iterator[dict[str, Any]]:
        """The runners' answers, as Ray Data brings them."""
        import ray.data

        self.pool.stop.watch()
        self.pool.stop.check()
        resources, environment = self.pool.resources, self.pool.environment
        takes: dict[str, Any] = {
            "batch_size": 1,
            "num_cpus": resources.cpus,
            "num_gpus": resources.gpus or None,
            "memory": resources.memory_gb * 2**30 if resources.memory_gb else None,
        }
        units = ray.data.from_items(list(todo), override_num_blocks=len(todo))
        if resources.gpus or environment:
            done = units.map_batches(
                Runner,
                fn_constructor_kwargs={
                    "tasks": self.tasks,
                    "run": self.run,
                    "hides_accelerators": not resources.gpus,
                },
                compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=initial, max_size=most),
                runtime_env=dict(environment) if environment else None,
                **takes,
            )
        else:
            do: Any = run_unit
            done = units.map_batches(
                do,
                fn_kwargs={"run": self.run, "tasks": ray.put(list(self.tasks))},
                compute=ray.data.TaskPoolStrategy(size=most),
                runtime_env={"env_vars": _limit_threads(resources)},
                **takes,
            )
        yield from done.iter_rows()


def list_units(tasks: Sequence[Task], done: Sequence[set[int]]) -> list[dict[str, Any]]:
    """The units that are not done, those of one key together: a worker keeps what it built last, and steps become ready
    in any order."""
    first = {task.key: number for number, task in reversed(list(enumerate(tasks)))}
    order = sorted(range(len(tasks)), key=lambda number: (first[tasks[number].key], number))
    return [{"task": t, "unit": u, "helps": False} for t in order for u in range(tasks[t].units) if u not in done[t]]


def _limit_threads(resources: Resources) -> dict[str, str]:
    """The environment of a worker process: as many threads as it has CPUs. Libraries read it when they are imported, so
    a process is shared by pools of equal ``cpus`` alone."""
    own = os.environ.get("OMP_NUM_THREADS")
    return {"OMP_NUM_THREADS": own or str(max(1, int(resources.cpus)))}


def _room(names: str, resources: Resources, say: Callable[[str], None]) -> int:
    """How many workers fit now. None at all is an error on this machine alone, and a wait where nodes may come."""
    room = session.room(resources)
    if room:
        return room
    wanted = f"{resources.cpus:g} CPUs"
    wanted += f", {resources.gpus:g} GPUs" if resources.gpus else ""
    wanted += f", {resources.memory_gb:g} GB of memory" if resources.memory_gb else ""
    if session.is_given():
        say(f"{names}: waiting for a node with {wanted}; the cluster has none. It goes on when one comes")
        return 0
    raise StepError(
        f"step {names} needs {wanted} for each worker, more than this machine has. Set less in the recipe's "
        "[resources], as --set resources.STEP.cpus=1, or run it on a cluster"
    )


def _explain(name: str, reason: str) -> str:
    return (
        f"step {name} failed: {reason}\n"
        "What was finished is kept. Mend the cause and run the same command again; it goes on from there."
    )
