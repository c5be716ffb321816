"""Waves: doing a group of steps, and committing each artifact by writing its manifest last.

A wave runs in a thread of its own. It holds the lease of each of its steps; a step that another driver makes is left to
it and looked at again later (see ``cluster.executor``).
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import compress
from typing import Any

from cluster import session
from cluster.artifact import MANIFEST, Artifact, Manifest
from cluster.capacity import Capacity, Grant
from cluster.errors import LeaseLostError, StepError
from cluster.lease import Holder, Lease, Leases
from cluster.pool import Crew, Pool
from cluster.progress import Progress
from cluster.receipt import READERS, RECEIPTS, Receipt, merge_facts, merge_rejects, read_receipts
from cluster.software import describe_software
from cluster.step import Step
from cluster.stop import Stop, StoppedError
from cluster.storage import Place, redact_secrets
from cluster.tasks import Task, UnitTask, task_of

Environments = Mapping[str, Mapping[str, Any]]

log = logging.getLogger("babelray")


@dataclass
class Surroundings:
    """What all waves of a run share."""

    root: Place
    progress: Progress
    environments: Environments
    leases: Leases
    capacity: Capacity
    stop: Stop


@dataclass
class Outcome:
    """How a wave ended: the steps whose artifacts are there, those that others make, and the error that ended it."""

    done: list[Step] = field(default_factory=list)
    elsewhere: list[tuple[Step, Holder | None]] = field(default_factory=list)
    error: BaseException | None = None


class Wave:
    """Steps that are done together, with what the cluster grants them."""

    def __init__(self, steps: Sequence[Step], grant: Grant, around: Surroundings):
        self.steps, self.grant, self.around = steps, grant, around
        self.leases: dict[str, Lease] = {}
        self.outcome = Outcome()
        self.crew: Crew | None = None  # that does units now

    def run(self) -> Outcome:
        """Do what is missing. Never raises: the error is in the outcome."""
        try:
            mine = self._take_leases()
            if mine:
                self._run_tables(mine) if mine[0].table else self._run_directory(mine[0])
        except (LeaseLostError, StoppedError) as end:
            # what is not done by now is another driver's, or was stopped by an error that the run raises itself
            log.debug("%s: %s", self.steps[0].id, end)
        except BaseException as error:
            self.outcome.error = error
        try:
            self._leave()
        except BaseException as error:
            self.outcome.error = self.outcome.error or error
        return self.outcome

    def has_lost(self, step: Step) -> bool:
        """Whether another driver has taken over a step that this wave is doing."""
        lease = self.leases.get(step.id)
        return lease is not None and lease.is_lost

    def _take_leases(self) -> list[Step]:
        """The steps that this driver is to make; notes those that others make or have made by now."""
        with ThreadPoolExecutor(READERS) as threads:
            taken = list(threads.map(lambda step: self.around.leases.take(self.around.root / step.id), self.steps))
            for step, lease in zip(self.steps, taken, strict=True):
                if isinstance(lease, Lease):
                    self.leases[step.id] = lease
                else:
                    self.outcome.elsewhere.append((step, lease))
            held = [step for step in self.steps if step.id in self.leases]
            completed = list(threads.map(lambda step: is_complete(step, self.around.root), held))
        for step in compress(held, completed):
            self._let_go(step)
            self.around.progress.skip(step.id)
        return [step for step, is_done in zip(held, completed, strict=True) if not is_done]

    def _leave(self) -> None:
        """Give back the leases of what was not finished; others may go on there."""
        for step in self.steps:
            if lease := self.leases.pop(step.id, None):
                self.outcome.elsewhere.append((step, None))
                self.around.leases.give_back(lease)

    def _let_go(self, step: Step) -> None:
        """Count a step as complete."""
        self.around.leases.drop(self.leases.pop(step.id))
        self.outcome.done.append(step)

    def _run_tables(self, steps: Sequence[Step]) -> None:
        tasks = [task_of(step, self.around.root, self.leases[step.id].fence) for step in steps]
        receipts = [read_receipts(task.receipts) for task in tasks]
        for step, task, done in zip(steps, tasks, receipts, strict=True):
            self._start(step, sum(r.rows for r in done.values()))
            if len(done) == task.units:
                self._commit(step, [done[unit] for unit in sorted(done)])
        missing = sum(task.units - len(done) for task, done in zip(tasks, receipts, strict=True))
        self.around.capacity.shrink(self.grant, missing)
        for number, receipt in self._perform(tasks, receipts, missing):
            step, done = steps[number], receipts[number]
            done[receipt.unit] = receipt
            if step.rows:  # a source, one unit, has written its rows part by part into its progress
                self.around.progress.advance(step.id, receipt.rows, receipt.rejected)
            if len(done) == tasks[number].units:
                self._commit(step, [done[unit] for unit in sorted(done)])

    def _start(self, step: Step, rows: int) -> None:
        total = step.parents[step.rows[0]].artifact(self.around.root).rows if step.rows else None
        self.around.progress.start(step.id, total, rows, self.around.root / step.id)

    def _run_directory(self, step: Step) -> None:
        out, fence = self.around.root / step.id, self.leases[step.id].fence
        started = time.perf_counter()
        self.around.progress.start(step.id, None, 0, out)

        def fan_out(label: str, work: Any, arguments: dict[str, Any], values: list[Any]) -> list[dict[str, Any]]:
            """See ``cluster.step.FanOut``."""
            self.around.stop.check()
            task = UnitTask(step.id, label, fence, work, arguments, tuple(values))
            done = read_receipts(task.receipts)
            missing = task.units - len(done)
            self.around.capacity.grow(self.grant, min(missing, step.resources.actors or missing))
            try:
                for _, receipt in self._perform([task], [done], missing):
                    done[receipt.unit] = receipt
                    self.around.progress.note(step.id, f"{label} {len(done)}/{len(values)}")
            finally:
                self.around.capacity.shrink(self.grant, self.grant.least)
            return [done[unit].facts for unit in range(len(values))]

        facts = step.work(step.config, step.input_artifacts(self.around.root), out, fan_out)
        fence.check()
        self._commit(step, [], facts, time.perf_counter() - started)

    def _perform(
        self, tasks: Sequence[Task], done: Sequence[Mapping[int, Receipt]], missing: int
    ) -> Iterator[tuple[int, Receipt]]:
        """Do the units that are missing; see ``Crew.perform``."""
        self.crew = Crew(tasks, [set(receipts) for receipts in done], self._pool(missing))
        try:
            yield from self.crew.perform()
        finally:
            self.crew = None

    def grow(self) -> None:
        """Let helpers do units that wait, as many as there is room for now. A cluster that was there grows by itself,
        as the number of actors at most says."""
        crew, before = self.crew, self.grant.actors
        if crew and not session.is_given():
            wanted = before + crew.count_waiting(before)
            now = self.around.capacity.grow(self.grant, min(wanted, self.grant.resources.actors or wanted))
            if now > before:
                crew.help(now - before)

    def _pool(self, units: int) -> Pool:
        """On this machine as many actors as were granted; a cluster that was there may grow for each of the units."""
        resources, granted = self.grant.resources, self.grant.actors
        most = (resources.actors or units) if session.is_given() else granted
        environment = self.around.environments.get(resources.environment)
        return Pool(resources, (granted, most), environment, self.around.progress.say, self.around.stop)

    def _commit(self, step: Step, receipts: Sequence[Receipt], facts: Any = None, seconds: float | None = None) -> None:
        """Check the rejects, write the manifest where none is, and drop the receipts, which it now stands for."""
        place = self.around.root / step.id
        manifest = describe(step, receipts, facts, seconds)
        if len(manifest.software) > 1:
            self.around.progress.say(f"{step.id} was made with {_differences(manifest.software)}")
        data = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False).encode()
        if not (place / MANIFEST).create(data):
            manifest = Artifact(place).manifest
        (place / RECEIPTS).delete()
        self._let_go(step)
        self.around.progress.finish(step.id, manifest)


def is_complete(step: Step, root: Place) -> bool:
    """Whether the step's artifact exists."""
    return (root / step.id / MANIFEST).exists()


def describe(step: Step, receipts: Sequence[Receipt], facts: Any, seconds: float | None) -> Manifest:
    """The manifest of a finished step.

    Raises:
        StepError: more was rejected than the step allows.
    """
    rejects = merge_rejects(receipts)
    rejected, rows = sum(r.count for r in rejects.values()), sum(r.rows for r in receipts)
    records = rows if step.rows else rows + rejected
    if rejected > step.max_rejects * records:
        raise StepError(_too_many(step, rejected, records, rejects))
    software = [receipt.software for receipt in receipts] or [describe_software()]
    return Manifest(
        step=step.name,
        fingerprint=step.fingerprint,
        version=step.version,
        config=redact_secrets(step.config.model_dump(mode="json")),
        inputs={role: parent.id for role, parent in step.parents.items()},
        table=step.table.name if step.table else None,
        parts=tuple(part for r in receipts for part in r.parts),
        rows=rows,
        rejects=rejects,
        seconds=round(sum(r.seconds for r in receipts) if seconds is None else seconds, 3),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        software=tuple({json.dumps(versions, sort_keys=True): versions for versions in software}.values()),
        facts=facts or merge_facts(receipt.facts for receipt in receipts),
    )


def _differences(software: Sequence[Mapping[str, str]]) -> str:
    """``torch 2.9 and 2.10; accelerator L4 and T4``: what differs between sets of versions."""
    names = sorted({name for versions in software for name in versions})
    found = {name: sorted({versions.get(name, "none") for versions in software}) for name in names}
    return "; ".join(f"{name} {' and '.join(values)}" for name, values in found.items() if len(values) > 1)


def _too_many(step: Step, rejected: int, records: int, rejects: Any) -> str:
    lines = [f"  {reason}: {r.count}, for example {'; '.join(r.examples[:3])}" for reason, r in rejects.items()]
    return (
        f"step {step.name} rejected {rejected} of {records} records, more than max_rejects = {step.max_rejects:g} "
        "allows:\n"
        + "\n".join(lines)
        + "\nMend the data, or allow more with --set run.max_rejects=SHARE; finished parts are kept."
    )
