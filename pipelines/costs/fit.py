"""From two runs of a sample to rates: what a pool takes to start, what a part takes, what a unit takes.

Seconds at work are those of the units' receipts, without the loading of models; what a step takes beside them, between
its start and its end as progress hears of them, is fixed. With the work W of a run of K tasks and U units,

    W = K · task + U · unit

is solved from the two runs. A training is read from its curve: the median of its steps is a unit, what its stops take
beyond that a task.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from cluster.artifact import Artifact, Manifest
from cluster.progress import Progress
from cluster.receipt import RECEIPTS, read_receipts
from cluster.schedule import key_of_wave
from cluster.step import FanOut, Step
from cluster.storage import Place
from pipelines.costs.amounts import Amount, Amounts
from pipelines.costs.cluster import NodeType
from pipelines.costs.quantities import unit_of
from pipelines.costs.rates import Rate, key_of
from pipelines.costs.schedule import Load, duration

LEVERAGE = 1.2  # times as many units per task that the larger run must have, for the two to be told apart
SAME_START_S = 1.0  # steps of a pool are started within this time


class TimedWork:
    """A directory work that says how long the units of its fan-outs took: their receipts go when it is done."""

    def __init__(self, work: Any):
        self.work, self.__name__ = work, work.__name__
        self.version = getattr(work, "version", 1)

    def __call__(self, config: Any, inputs: Mapping[str, Any], out: Place, fan_out: FanOut) -> dict[str, Any]:
        """Do the work."""
        labels: list[str] = []

        def note(label: str, work: Any, arguments: dict[str, Any], units: list[Any]) -> list[dict[str, Any]]:
            labels.append(label)
            return fan_out(label, work, arguments, units)

        facts = self.work(config, inputs, out, note)
        receipts = [r for label in labels for r in read_receipts(out / RECEIPTS / label).values()]
        return {**facts, "unit_seconds": sum(r.seconds for r in receipts), "pools": len(labels)}


class TimedProgress(Progress):
    """Progress that remembers when each step began and ended."""

    def __init__(self, console: Any = None):
        super().__init__(console)
        self.began: dict[str, float] = {}
        self.ended: dict[str, float] = {}

    def start(self, step: str, total: int | None, done: int, place: Place) -> None:
        """See ``Progress``."""
        self.began[step] = time.monotonic()
        super().start(step, total, done, place)

    def finish(self, step: str, manifest: Manifest) -> None:
        """See ``Progress``."""
        self.ended[step] = time.monotonic()
        super().finish(step, manifest)


@dataclass(frozen=True)
class Measured:
    """One step of one run: what it handled, its seconds of work, what its pool took beside them, and its bytes."""

    amount: Amount
    work_s: float
    fixed_s: float
    tasks: float
    bytes: float


def read_run(
    steps: Mapping[str, Step], root: Place, amounts: Amounts, progress: TimedProgress, node: NodeType
) -> dict[str, Measured]:
    """What a run of a sample took on ``node``, by the id of the plan's step; ``steps`` has what stands for each."""
    artifacts = {name: Artifact(root / step.id) for name, step in steps.items()}
    work = {name: _work(steps[name], amounts[steps[name].id], artifact) for name, artifact in artifacts.items()}
    loads = {
        name: Load(0.0, work[name][0], amounts[step.id].tasks, node, work[name][0] * amounts[step.id].serial)
        for name, step in steps.items()
    }
    fixed = _fixed(steps, loads, progress)
    return {
        name: Measured(
            amounts[step.id],
            work[name][0],
            fixed[name],
            work[name][1] if work[name][1] else float(amounts[step.id].tasks),
            float(sum(size for _, size, _ in artifacts[name].place.files())),
        )
        for name, step in steps.items()
        if name in fixed
    }


def _work(step: Step, amount: Amount, artifact: Artifact) -> tuple[float, float]:
    """Seconds at work, and the number of tasks where the run tells it (0: as planned)."""
    manifest = artifact.manifest
    if unit_of(step) == "steps":
        every, stop = read_curve(artifact)
        stops = amount.extra["stops"]
        return every * amount.units + stop / amount.extra["stop_size"] * stops, stops
    if step.table is None and manifest.facts.get("pools"):
        return float(manifest.facts["unit_seconds"]), 0.0
    return manifest.seconds, 0.0


def read_curve(artifact: Artifact) -> tuple[float, float]:
    """Seconds of a training step, and of a stop at half: the student is measured and saved between two steps.

    The curve has tenths of a second, so a step is the mean of all but the first and the one after the stop.
    """
    lines = (artifact.place / "losses.tsv").read().decode().splitlines()[1:]
    ends = {int(line.split("\t")[0]): float(line.split("\t")[3]) for line in lines}
    first, last = min(ends), max(ends)
    half = last // 2
    if half <= first or half + 1 >= last:
        return (ends[last] - ends[first]) / max(1, last - first), 0.0
    every = (ends[half] - ends[first] + ends[last] - ends[half + 1]) / (half - first + last - half - 1)
    return every, max(0.0, ends[half + 1] - ends[half] - every)


def _fixed(steps: Mapping[str, Step], loads: Mapping[str, Load], progress: TimedProgress) -> dict[str, float]:
    """What each step's pool took beside work, the same for all steps of a pool."""
    pools: dict[Any, list[str]] = defaultdict(list)
    for name, step in steps.items():
        if step.id in progress.ended:
            start = progress.began[step.id]
            same = (key for key in pools if key[0] == key_of_wave(step) and abs(key[1] - start) < SAME_START_S)
            pools[next(same, (key_of_wave(step), start))].append(name)
    fixed: dict[str, float] = {}
    for (_, start), names in pools.items():
        first, here = steps[names[0]], [loads[name] for name in names]
        fit_here = max(1, here[0].node.fits(first.resources))
        actors = max(1, min(sum(load.tasks for load in here), fit_here, first.resources.actors or fit_here))
        end = max(progress.ended[steps[name].id] for name in names)
        busy = duration(here, actors, is_training=unit_of(first) == "steps")
        fixed |= dict.fromkeys(names, max(0.0, end - start - busy))
    return fixed


def fit(
    plan_steps: Sequence[Step], runs: Sequence[Mapping[str, Measured]], languages: set[str], hardware: str
) -> dict[str, Rate]:
    """The rates of a plan's steps by key, from a small run and a large one."""
    keys: dict[str, list[str]] = defaultdict(list)
    for step in plan_steps:
        if all(step.id in run for run in runs):
            keys[key_of(step, languages)].append(step.id)
    grows = {step.id: bool(step.table) or hasattr(step.config, "index") for step in plan_steps}
    return {
        key: _fit_one([[run[name] for name in names] for run in runs], hardware, grows[names[0]])
        for key, names in keys.items()
    }


def _fit_one(runs: Sequence[Sequence[Measured]], hardware: str, grows: bool) -> Rate:
    """One rate. What is kept ``grows`` with the rows of tables and indexes, and hardly with those of others."""
    work = [sum(m.work_s for m in run) for run in runs]
    units = [sum(m.amount.units for m in run) for run in runs]
    tasks = [max(1.0, sum(m.tasks for m in run)) for run in runs]
    rows = [sum(m.amount.rows for m in run) for run in runs]
    kept = sum(m.bytes for m in runs[-1])
    per_row, always = (kept / rows[-1], 0.0) if grows and rows[-1] else (0.0, kept / len(runs[-1]))
    task, unit = solve(work, units, tasks)
    fixed = median(m.fixed_s for run in runs for m in run)
    return Rate(round(fixed, 4), task, unit, "calibration", hardware, per_row, always)


def solve(work: Sequence[float], units: Sequence[float], tasks: Sequence[float]) -> tuple[float, float]:
    """Seconds of a task and of a unit from two runs, neither negative. Where the larger run has hardly more units per
    task, all is put down to units."""
    if not units[-1]:
        return work[-1] / tasks[-1], 0.0
    small, large = units[0] / tasks[0], units[-1] / tasks[-1]
    if large < LEVERAGE * small:
        return 0.0, work[-1] / units[-1]
    per_small, per_large = work[0] / tasks[0], work[-1] / tasks[-1]
    unit = min(max(0.0, (per_large - per_small) / (large - small)), per_large / large)
    return max(0.0, per_large - unit * large), unit
