"""When each step of a plan would run on a cluster, by the rules of the executor.

The books are those of ``cluster.executor``: ``Schedule`` says which steps are ready and which share a pool,
``Capacity`` which pools run side by side. A pool takes what is fixed once; its parts are shared out among its actors,
and it ends not before its longest part. A training takes all its workers at once. Nothing is started.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from cluster.capacity import Capacity, Grant
from cluster.executor import UNLIMITED
from cluster.schedule import Schedule
from cluster.step import Step
from pipelines.costs.cluster import Cluster, NodeType
from pipelines.costs.quantities import unit_of


@dataclass(frozen=True)
class Load:
    """What a step asks of the machines ``node``: seconds once, seconds of work of all actors together, of which
    ``serial_s`` on one actor, in so many tasks."""

    fixed_s: float
    work_s: float
    tasks: int
    node: NodeType
    serial_s: float = 0.0


@dataclass(frozen=True)
class Turn:
    """Steps that run together: when, on how many actors, on how many machines of which type."""

    steps: tuple[Step, ...]
    start_s: float
    end_s: float
    actors: int
    node: NodeType
    machines: int

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.end_s - self.start_s

    def share(self, step: Step, loads: Mapping[str, Load]) -> float:
        """The part of this turn that falls to one of its steps, by work."""
        work = sum(loads[other.id].work_s for other in self.steps)
        return loads[step.id].work_s / work if work else 1 / len(self.steps)


@dataclass
class _Clock:
    """Running turns by their end, and the time."""

    now: float = 0.0
    running: list[tuple[float, int, Turn, Grant]] = field(default_factory=list)
    numbers: "count[int]" = field(default_factory=count)


def simulate(
    missing: Sequence[Step], loads: Mapping[str, Load], cluster: Cluster, ray_start_s: float = 0.0
) -> list[Turn]:
    """The turns of a run, in the order in which they start. ``missing`` has inputs before what reads them. The turns
    that come first wait ``ray_start_s`` for Ray."""
    schedule = Schedule(missing)
    per_gpu = [s.resources.cpus / s.resources.gpus for s in missing if s.resources.gpus]
    capacity = Capacity(lambda: cluster.capacity, max(per_gpu, default=0.0))
    clock, turns = _Clock(), []
    while not schedule.is_done:
        for steps in sorted(schedule.waves, key=lambda steps: -steps[0].resources.gpus):
            first = steps[0]
            most = (first.resources.actors or UNLIMITED) if first.table else first.workers
            grant = capacity.take(first.resources, first.workers, most)
            if grant is None:
                continue
            schedule.start(steps)
            turn = _take_turn(steps, loads, clock.now, _actors(steps, loads, grant, capacity))
            turn = replace(turn, end_s=turn.end_s + ray_start_s) if turn.start_s == 0 else turn
            turns.append(turn)
            heapq.heappush(clock.running, (turn.end_s, next(clock.numbers), turn, grant))
        clock.now, _, turn, grant = heapq.heappop(clock.running)
        capacity.give_back(grant)
        schedule.finish(turn.steps)
    return turns


def _actors(steps: Sequence[Step], loads: Mapping[str, Load], grant: Grant, capacity: Capacity) -> int:
    """How many actors a turn has: as many as were granted, as fit the machines, and as there are tasks for."""
    first = steps[0]
    tasks = max(1, sum(loads[step.id].tasks for step in steps))
    node = loads[first.id].node
    fit = max(1, node.count * node.fits(first.resources))
    if first.table:
        capacity.shrink(grant, tasks)
    elif first.workers == 1:
        capacity.grow(grant, min(tasks, first.resources.actors or tasks))
    return max(first.workers, min(grant.actors, fit, tasks))


def _take_turn(steps: Sequence[Step], loads: Mapping[str, Load], now: float, actors: int) -> Turn:
    first = steps[0]
    node = loads[first.id].node
    seconds = duration([loads[step.id] for step in steps], actors, is_training=unit_of(first) == "steps")
    machines = min(node.count, -(-actors // max(1, node.fits(first.resources))))
    return Turn(tuple(steps), now, now + seconds, actors, node, machines)


def duration(loads: Sequence[Load], actors: int, is_training: bool = False) -> float:
    """Seconds of a turn: what is fixed, what one actor does, and the rest shared out; no shorter than a task."""
    fixed = max(load.fixed_s for load in loads)
    work, serial = sum(load.work_s for load in loads), sum(load.serial_s for load in loads)
    if is_training:
        return fixed + work
    longest = max((load.work_s - load.serial_s) / max(1, load.tasks) for load in loads)
    return fixed + serial + max((work - serial) / actors, longest)


def machine_seconds(turns: Sequence[Turn], idle_s: float) -> dict[NodeType, float]:
    """Seconds that machines of each type are up: from the first turn that needs one until ``idle_s`` after its last.

    A machine that is idle for less than that is used again. Where all of a type are busy, turns share them.
    """
    paid: dict[NodeType, float] = {}
    for node in {turn.node for turn in turns}:
        machines: list[list[float]] = []  # of each that is up: since when, busy until when
        total = 0.0
        for turn in sorted((t for t in turns if t.node == node and t.machines), key=lambda turn: turn.start_s):
            gone = [m for m in machines if m[1] + idle_s < turn.start_s]
            total += sum(until + idle_s - since for since, until in gone)
            machines = [m for m in machines if m not in gone]
            free = sorted((m for m in machines if m[1] <= turn.start_s), key=lambda m: -m[1])[: turn.machines]
            new = [[turn.start_s, 0.0] for _ in range(min(turn.machines - len(free), node.count - len(machines)))]
            machines += new
            busy = [m for m in machines if m not in free and m not in new]
            shared = sorted(busy, key=lambda m: -m[1])[: turn.machines - len(free) - len(new)]
            for machine in [*free, *new, *shared]:
                machine[1] = max(machine[1], turn.end_s)
        paid[node] = total + sum(until + idle_s - since for since, until in machines)
    return paid
