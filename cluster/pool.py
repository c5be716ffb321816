"""Units of work on Ray Data: each unit is done once, wherever the cluster has room.

``perform`` streams the units that have no receipt through a pool of workers and yields their receipts as they come.
Tasks that share a key share what was built for them: seven languages are encoded with one load of the model. A unit
whose disk or store fails for a moment is done again; a unit that kills its worker three times fails the run, while one
that is lost with its node is done again elsewhere and not held against it.

Workers without accelerators are processes for Ray's tasks, which it keeps from one pool to the next: what they imported
stays imported, and sentence-transformers takes seconds; what they built is given up soon. With accelerators, or in a
runtime environment, they are an autoscaling pool of actors, which end with the pool and give the device's memory back.
"""

import json
import os
import platform
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster import session
from cluster.accelerators import hide_accelerators
from cluster.component import Resources
from cluster.errors import LeaseLostError, StepError
from cluster.receipt import Receipt, receipt_place, write_receipt
from cluster.retry import patiently
from cluster.software import describe_software
from cluster.stop import Stop
from cluster.storage import Place
from cluster.tasks import Task

ERROR = "error.txt"  # beside the receipts: the trace of the unit that failed last
DRIVER_MARK = "driver"  # written by the driver into the run's directory, for every node to see
FORGET_S = 30.0  # after a process's last unit; building again what a next unit needs takes seconds
ATTEMPTS = 3  # times that a unit may kill its worker on nodes that live; Ray itself would go on for ever
ATTEMPTS_IN_ALL = 30  # those on lost nodes included: a unit that takes its node down with it ends too


@dataclass(frozen=True)
class Pool:
    """How units are done: what a worker takes, how many workers to begin with and at most, in which runtime environment
    (Ray's ``runtime_env``), how the user learns of waiting, what stops it."""

    resources: Resources
    actors: tuple[int, int]
    environment: Mapping[str, Any] | None
    say: Callable[[str], None]
    stop: Stop


class Runner:
    """What does units in a worker: it builds a task's work when it first meets the task, keeps the last one built, and
    does a unit per call.

    ``run`` names a directory beside the receipts that belongs to this call of ``perform``: the driver leaves a file
    there for each node to see, and each unit the nodes on which it was begun. A unit that is begun a second time has
    lost its worker: one that only fails returns its error as a value.
    """

    def __init__(self, tasks: Sequence[Task], run: str, hides_accelerators: bool = False):
        if hides_accelerators:
            hide_accelerators()
        self.tasks, self.run = tasks, run
        self.key: str | None = None
        self.work: Any = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        task, unit = self.tasks[int(batch["task"][0])], int(batch["unit"][0])
        answer = {"task": batch["task"], "receipt": [""], "error": [""], "trace": [""], "is_lost": [False]}
        try:
            return answer | {"receipt": [self._finish(task, unit).model_dump_json()]}
        except Exception as error:
            # raised again by the driver: not every exception survives being sent, and Ray would print the others twice
            return answer | {
                "error": [f"{type(error).__name__}: {error}"],
                "trace": [traceback.format_exc()],
                "is_lost": [isinstance(error, LeaseLostError)],
            }

    def _finish(self, task: Task, unit: int) -> Receipt:
        run = task.receipts / self.run
        task.fence.check()
        if run.is_local and not (run / DRIVER_MARK).exists():
            raise StepError(
                f"node {platform.node()} does not see {run.redacted}, which the driver wrote: the root is on a disk of "
                "another machine. Set root to an object store (s3://…), or to a directory that every node mounts"
            )
        finished = receipt_place(task.receipts, unit)
        if finished.exists():  # Ray retries a lost task from its start: what it finished stays finished
            return Receipt.model_validate_json(finished.read())
        _note_attempt(run / f"{unit:05d}.json", unit)
        return patiently(self._do, task, unit)

    def _do(self, task: Task, unit: int) -> Receipt:
        if self.key != task.key:
            self.work = self.key = None  # the old model goes before the new one comes
            self.work, self.key = task.build(), task.key
        receipt = task.do(self.work, unit).model_copy(update={"software": describe_software()})
        write_receipt(task.receipts, receipt)
        return receipt


_runner: Runner | None = None  # of this process, where it does tasks: the one of the last pool
_forgetting: threading.Timer | None = None  # gives the runner up when no unit has come for a while
_one_unit = threading.Lock()


def run_unit(batch: dict[str, Any], run: str, tasks: Any) -> dict[str, Any]:
    """Do a unit in a process that is kept, with the ``Runner`` of this call of ``perform``. ``tasks`` is a reference to
    them, so that a process reads them once."""
    global _runner, _forgetting
    if _forgetting:
        _forgetting.cancel()
    with _one_unit:
        if _runner is None or _runner.run != run:
            import ray

            _runner = None  # what was built for another pool goes first
            _runner = Runner(ray.get(tasks), run, hides_accelerators=True)
        answer = _runner(batch)
    _forgetting = threading.Timer(FORGET_S, _forget)
    _forgetting.daemon = True
    _forgetting.start()
    return answer


def _forget() -> None:
    """Give up what was built: the process may be kept for long, and its memory is another's."""
    global _runner
    with _one_unit:
        _runner = None


def _note_attempt(file: Place, unit: int) -> None:
    """Note on which node a unit is begun, before it is.

    Raises:
        StepError: the unit was begun too often. Attempts on nodes that are gone do not count: a spot node that is
            taken back is not the unit's fault.
    """
    nodes: list[str] = json.loads(file.read()) if file.exists() else []
    if len(nodes) >= ATTEMPTS:
        alive = session.living_nodes()
        killed = sum(node in alive for node in nodes)
        if killed >= ATTEMPTS or len(nodes) >= ATTEMPTS_IN_ALL:
            where = "" if killed >= ATTEMPTS else f", {len(nodes) - killed} times together with its node"
            raise StepError(
                f"unit {unit} killed its worker {len(nodes)} times{where}: out of memory? Give the step more memory "
                "per worker (resources.STEP.memory_gb) or fewer workers per node (resources.STEP.cpus), or make "
                "smaller parts"
            )
    file.write(json.dumps([*nodes, session.node_id()]).encode())


def perform(tasks: Sequence[Task], done: Sequence[set[int]], pool: Pool) -> Iterator[tuple[int, Receipt]]:
    """Do all units of ``tasks`` that are not in ``done`` and yield (task's number, receipt) as they finish.

    Raises:
        StepError: a unit raised, or no worker can ever have its resources; the others' receipts are kept.
        LeaseLostError: another driver makes one of the artifacts.
        StoppedError: the run is being stopped.
    """
    todo = list_units(tasks, done)
    if not todo:
        return
    names = ", ".join(sorted({tasks[row["task"]].name for row in todo}))
    run = f"runs/{uuid.uuid4().hex}"
    for number in {row["task"] for row in todo}:
        (tasks[number].receipts / run / DRIVER_MARK).write(b"")
    session.connect()
    from ray.exceptions import RayError

    granted, most = pool.actors
    initial = max(1, min(len(todo), granted, most, _room(names, pool.resources, pool.say)))
    pool.stop.watch()
    pool.stop.check()
    try:
        for row in _stream(todo, pool, tasks, run, (initial, max(initial, min(most, len(todo))))):
            if row["is_lost"]:
                raise LeaseLostError(row["error"])
            if row["error"]:
                task = tasks[int(row["task"])]
                (task.receipts / ERROR).write(row["trace"].encode())
                trace = f"The trace is in {(task.receipts / ERROR).redacted}"
                raise StepError(_explain(task.name, f"{row['error']}\n{trace}"))
            yield int(row["task"]), Receipt.model_validate_json(row["receipt"])
    except RayError as error:
        pool.stop.check()
        raise StepError(_explain(names, str(error))) from error
    pool.stop.check()


def list_units(tasks: Sequence[Task], done: Sequence[set[int]]) -> list[dict[str, int]]:
    """The units that are not done, those of one key together: a worker keeps what it built last, and steps become ready
    in any order."""
    first = {task.key: number for number, task in reversed(list(enumerate(tasks)))}
    order = sorted(range(len(tasks)), key=lambda number: (first[tasks[number].key], number))
    return [{"task": t, "unit": u} for t in order for u in range(tasks[t].units) if u not in done[t]]


def _stream(
    todo: Sequence[Mapping[str, int]], pool: Pool, tasks: Sequence[Task], run: str, actors: tuple[int, int]
) -> Iterator[dict[str, Any]]:
    """The runners' answers, as Ray Data brings them. ``actors`` are how many to begin with and how many at most."""
    import ray.data

    resources = pool.resources
    initial, most = actors
    takes: dict[str, Any] = {
        "batch_size": 1,
        "num_cpus": resources.cpus,
        "num_gpus": resources.gpus or None,
        "memory": resources.memory_gb * 2**30 if resources.memory_gb else None,
    }
    units = ray.data.from_items(list(todo), override_num_blocks=len(todo))
    if resources.gpus or pool.environment:
        done = units.map_batches(
            Runner,
            fn_constructor_kwargs={"tasks": tasks, "run": run, "hides_accelerators": not resources.gpus},
            compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=initial, max_size=most),
            runtime_env=dict(pool.environment) if pool.environment else None,
            **takes,
        )
    else:
        do: Any = run_unit
        done = units.map_batches(
            do,
            fn_kwargs={"run": run, "tasks": ray.put(list(tasks))},
            compute=ray.data.TaskPoolStrategy(size=most),
            runtime_env={"env_vars": _limit_threads(resources)},
            **takes,
        )
    yield from done.iter_rows()


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
