"""Doing units in a worker: ``Runner`` in an actor, ``run_unit`` in a process that Ray keeps for its tasks."""

import json
import platform
import threading
import traceback
from collections.abc import Sequence
from typing import Any

from cluster import session
from cluster.accelerators import hide_accelerators
from cluster.errors import LeaseLostError, StepError
from cluster.receipt import Receipt, receipt_place, write_receipt
from cluster.retry import patiently
from cluster.software import describe_software
from cluster.storage import Place
from cluster.tasks import Task

DRIVER_MARK = "driver"  # written by the driver into the run's directory, for every node to see
FORGET_S = 30.0  # after a process's last unit; building again what a next unit needs takes seconds
ATTEMPTS = 3  # times that a unit may kill its worker on nodes that live; Ray itself would go on for ever
ATTEMPTS_IN_ALL = 30  # those on lost nodes included: a unit that takes its node down with it ends too


class Runner:
    """What does units in a worker: it builds a task's work when it first meets the task, keeps the last one built, and
    does a unit per call.

    ``run`` names a directory beside the receipts that belongs to one ``Crew``: the driver leaves a file there for each
    node to see, and each unit the nodes on which it was begun. A unit that is begun a second time has lost its worker:
    one that only fails returns its error as a value. A helper leaves every unit that has been begun.
    """

    def __init__(self, tasks: Sequence[Task], run: str, hides_accelerators: bool = False):
        if hides_accelerators:
            hide_accelerators()
        self.tasks, self.run = tasks, run
        self.key: str | None = None
        self.work: Any = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        task, unit, helps = self.tasks[int(batch["task"][0])], int(batch["unit"][0]), bool(batch["helps"][0])
        answer = {name: batch[name] for name in ("task", "unit")}
        answer |= {"receipt": [""], "error": [""], "trace": [""], "is_lost": [False]}
        try:
            receipt = self._finish(task, unit, helps)
            return answer | {"receipt": [receipt.model_dump_json() if receipt else ""]}
        except Exception as error:
            # raised again by the driver: not every exception survives being sent, and Ray would print the others twice
            return answer | {
                "error": [f"{type(error).__name__}: {error}"],
                "trace": [traceback.format_exc()],
                "is_lost": [isinstance(error, LeaseLostError)],
            }

    def _finish(self, task: Task, unit: int, helps: bool) -> Receipt | None:
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
        attempts = run / f"{unit:05d}.json"
        if not helps:
            _note_attempt(attempts, unit)
        elif attempts.exists() or not (run / f"{unit:05d}.helper").create(b""):
            return None
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
    """Do a unit in a process that is kept, with the ``Runner`` of this crew. ``tasks`` is a reference to
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
