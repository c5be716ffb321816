"""The executor: makes what is missing of a plan, in waves that run side by side where the cluster has room.

For every step one of four things happens: its artifact is complete and it is skipped; another driver makes it and it is
waited for; some of its units have receipts and it goes on from there; or it starts. A finished plan costs one look for
a manifest per target and never starts Ray.

The main thread keeps the books (``Schedule``, ``Capacity``); each wave runs in a thread. When a step fails, the pools
of the other waves are shut down, a directory work is waited for, and the run ends with the first error. Ctrl-C ends
everything at once. Receipts and checkpoints stay.
"""

import queue
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from cluster import session
from cluster.accelerators import check_gpus
from cluster.artifact import Artifact
from cluster.capacity import Capacity
from cluster.errors import LeaseLostError, StepError
from cluster.lease import Holder, Leases, newest
from cluster.progress import Progress
from cluster.receipt import READERS
from cluster.schedule import Schedule
from cluster.step import Step, list_steps
from cluster.stop import Stop
from cluster.storage import Place
from cluster.waves import Environments, Outcome, Surroundings, Wave, is_complete

POLL_S = 1.0  # between two looks at what other drivers make, and at a cluster that may have grown
MOST_WAVES = 64  # at once: each has a thread, and most have a pool
UNLIMITED = 1_000_000  # actors: as many as there is room for
GOODBYE_S = 10.0  # for the threads to end after Ctrl-C


def run(
    targets: Sequence[Step], root: Place, progress: Progress, environments: Environments | None = None
) -> list[Artifact]:
    """Make the artifacts of ``targets`` and all that they need, and return them in the order of ``targets``.

    ``environments`` are the recipe's runtime environments (Ray's ``runtime_env``) by the names that steps' resources
    use.

    Raises:
        StepError: a step failed or rejected more than it may; what was finished is kept. Or, before anything starts,
            a step names an unknown environment, or wants GPUs that this machine does not have.
    """
    missing = find_missing(targets, root)
    _check_environments(missing, environments or {})
    check_gpus(missing)
    if missing:
        _Run(missing, root, progress, environments or {}).go()
    return [step.artifact(root) for step in targets]


def find_missing(targets: Iterable[Step], root: Place) -> list[Step]:
    """The steps that must run, inputs before what reads them. Below a complete artifact nothing is looked at: its
    inputs may have been deleted to save space."""
    targets = list(targets)
    is_missing: dict[str, bool] = {}
    with ThreadPoolExecutor(READERS) as threads:
        level = {step.id: step for step in targets}
        while level:
            completed = threads.map(lambda step: is_complete(step, root), level.values())
            is_missing |= {name: not is_done for name, is_done in zip(level, completed, strict=True)}
            read = (parent for step in level.values() if is_missing[step.id] for parent in step.parents.values())
            level = {parent.id: parent for parent in read if parent.id not in is_missing}
    return list_steps(targets, lambda step: is_missing[step.id])


def _check_environments(steps: Iterable[Step], environments: Environments) -> None:
    for step in steps:
        name = step.resources.environment
        if name and name not in environments:
            known = ", ".join(sorted(environments)) or "none"
            raise StepError(
                f"step {step.name} runs in the environment {name!r}, which is not defined; known: {known}. Correct "
                f"{step.resources_key}.environment, or add [environments.{name}] to the recipe"
            )


class _Run:
    """One call of ``run``: the books, and the threads of the waves."""

    def __init__(self, missing: Sequence[Step], root: Place, progress: Progress, environments: Environments):
        self.missing, self.progress, self.root = missing, progress, root
        self.schedule = Schedule(missing)
        per_gpu = [s.resources.cpus / s.resources.gpus for s in missing if s.resources.gpus]
        capacity = Capacity(partial(session.capacity, bool(per_gpu)), max(per_gpu, default=0.0))
        self.around = Surroundings(root, progress, environments, Leases(), capacity, Stop())
        self.ends: queue.Queue[tuple[Wave, Outcome]] = queue.Queue()
        self.running: dict[Wave, threading.Thread] = {}
        self.elsewhere: dict[str, Step] = {}
        self.announced: set[str] = set()
        self.errors: list[BaseException] = []

    def go(self) -> None:
        """Run until all steps are complete, or one failed and the others ended."""
        with self.progress.plan([s.id for s in self.missing]):
            try:
                while not self.schedule.is_done and not (self.errors and not self.running):
                    if not self.errors:
                        self._start_waves()
                        self._grow_waves()
                    self._wait()
                    self._check_leases()
            finally:  # after Ctrl-C waves still run
                self.around.stop.set()
                end = time.monotonic() + GOODBYE_S
                for thread in self.running.values():
                    thread.join(max(0.0, end - time.monotonic()))
                self.around.leases.close()
        if self.errors:
            raise self.errors[0]

    def _start_waves(self) -> None:
        """Start the ready waves that fit, those that need accelerators first."""
        self.around.capacity.refresh()
        for steps in sorted(self.schedule.waves, key=lambda steps: -steps[0].resources.gpus):
            if len(self.running) == MOST_WAVES:
                return
            first = steps[0]
            most = (first.resources.actors or UNLIMITED) if first.table else first.workers
            grant = self.around.capacity.take(first.resources, first.workers, most)
            if grant is None:
                continue
            self.schedule.start(steps)
            wave = Wave(steps, grant, self.around)
            # a daemon: what a work does in C cannot be interrupted, and must not keep the process alive
            thread = threading.Thread(target=self._do, args=(wave,), daemon=True, name=f"wave {first.name}")
            self.running[wave] = thread
            thread.start()

    def _grow_waves(self) -> None:
        """Let running waves take the room that is left.

        Not while other waves wait for more room than that: the next wave that ends makes room for them. Where a single
        wave runs, they have to wait for its end, which comes sooner with more workers.
        """
        if len(self.running) == 1 or not self.schedule.waves:
            for wave in self.running:
                wave.grow()

    def _do(self, wave: Wave) -> None:
        self.ends.put((wave, wave.run()))

    def _wait(self) -> None:
        """Wait until a wave ends, or for a moment; then look at what other drivers make."""
        try:
            wave, outcome = self.ends.get(timeout=POLL_S)
        except queue.Empty:
            self._look_elsewhere()
            return
        self.running.pop(wave).join()
        self.around.capacity.give_back(wave.grant)
        self.schedule.finish(outcome.done)
        for step, holder in outcome.elsewhere:
            self.elsewhere[step.id] = step
            self._announce(step, holder)
        if outcome.error:
            self._fail(outcome.error)

    def _check_leases(self) -> None:
        """Leave at once when a directory work runs whose lease is lost: it cannot be stopped but with this process.

        Actors check the lease themselves, so tables are not written any more.
        """
        for wave in self.running:
            lost = [step for step in wave.steps if not step.table and wave.has_lost(step)]
            if lost:
                _, holder = newest(self.root / lost[0].id)
                raise LeaseLostError(
                    f"the lease of {lost[0].id} is lost; it is now {holder or 'complete, made by another run'}. Was "
                    "this machine asleep, or without its storage? Run the same command again: it waits for the other "
                    "run, or goes on from there"
                )

    def _fail(self, error: BaseException) -> None:
        if not self.errors and self.running:
            names = ", ".join(sorted(step.name for wave in self.running for step in wave.steps)[:5])
            self.progress.say(f"{error}\nEnding the other steps first ({names}); Ctrl-C ends them at once")
        self.errors.append(error)
        self.around.stop.set()

    def _announce(self, step: Step, holder: Holder | None) -> None:
        if holder and holder.token not in self.announced:
            self.announced.add(holder.token)
            self.progress.say(f"{step.id}: {holder}; waiting")

    def _look_elsewhere(self) -> None:
        """Go on with steps that another driver has completed, or does not make any more."""
        if not self.elsewhere:
            return
        steps = list(self.elsewhere.values())
        with ThreadPoolExecutor(READERS) as threads:
            complete = list(threads.map(lambda step: is_complete(step, self.root), steps))
            free = threads.map(lambda step: self.around.leases.is_free(self.root / step.id), steps)
            for step, is_there, is_free in zip(steps, complete, free, strict=True):
                if is_there or is_free:
                    del self.elsewhere[step.id]
                if is_there:
                    self.progress.skip(step.id)
                    self.schedule.finish([step])
                elif is_free:
                    self.schedule.put_back(step)
