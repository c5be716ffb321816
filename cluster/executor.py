"""The executor: makes what is missing of a plan, in waves, and commits each artifact by writing its manifest last.

For every step one of three things happens: its artifact is complete and it is skipped; some of its units have
receipts and it goes on from there; or it starts. Ready steps that share their work run in one pool of actors (a
*wave*), so seven languages cost one load of the model. A finished plan costs one look for a
manifest per target and never starts Ray.
"""

import json
import platform
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cluster import units
from cluster.artifact import MANIFEST, Artifact, Manifest
from cluster.component import fingerprint
from cluster.errors import StepError
from cluster.progress import Progress
from cluster.receipt import RECEIPTS, Receipt, merge_rejects, read_receipts
from cluster.step import Step, flatten
from cluster.storage import Place, redact_secrets

SOFTWARE = ("babelray", "ray", "torch", "transformers", "sentence-transformers", "pyarrow", "numpy")


def run(targets: Sequence[Step], root: Place, progress: Progress) -> list[Artifact]:
    """Make the artifacts of ``targets`` and all that they need, and return them in the order of ``targets``.

    Raises:
        StepError: a step failed or rejected more than it may; what was finished is kept.
    """
    missing = find_missing(targets, root)
    with progress.plan([s.id for s in missing]):
        while missing:
            waiting = {s.id for s in missing}
            ready = [s for s in missing if not any(parent.id in waiting for parent in s.parents.values())]
            wave = _wave(ready)
            (_run_tables if wave[0].table else _run_directory)(wave, root, progress)
            missing = [s for s in missing if s not in wave]
    return [step.artifact(root) for step in targets]


def complete(step: Step, root: Place) -> bool:
    """Whether the step's artifact exists."""
    return (root / step.id / MANIFEST).exists()


def find_missing(targets: Iterable[Step], root: Place) -> list[Step]:
    """The steps that must run, inputs before what reads them. Below a complete artifact nothing is looked at: its
    inputs may have been deleted to save space."""
    order: dict[str, Step] = {}

    def visit(step: Step) -> None:
        if step.id in order or complete(step, root):
            return
        for parent in step.parents.values():
            visit(parent)
        order[step.id] = step

    for target in targets:
        visit(target)
    return list(order.values())


def _wave(ready: Sequence[Step]) -> list[Step]:
    """The first ready step, and those ready that are mapped by the same work with the same resources."""
    first = ready[0]
    if first.table is None:
        return [first]
    return [s for s in ready if s.table and s.work is first.work and s.resources == first.resources]


def _run_tables(wave: Sequence[Step], root: Place, progress: Progress) -> None:
    jobs = [_job(step, root) for step in wave]
    receipts = [read_receipts(job.receipts) for job in jobs]
    started = time.perf_counter()
    for step, job, done in zip(wave, jobs, receipts, strict=True):
        total = step.parents[step.rows[0]].artifact(root).rows if step.rows else None
        progress.start(step.id, total, sum(r.rows for r in done.values()), root / step.id)
        if len(done) == len(job.units):
            _commit(step, root, [done[u] for u in range(len(job.units))], started, progress)
    for number, receipt in units.perform(jobs, [set(done) for done in receipts], wave[0].resources, progress.say):
        step, done = wave[number], receipts[number]
        done[receipt.unit] = receipt
        if step.rows:  # a source, one unit, has told its rows part by part
            progress.advance(step.id, receipt.rows, receipt.rejected)
        if len(done) == len(jobs[number].units):
            _commit(step, root, [done[u] for u in sorted(done)], started, progress)


def _job(step: Step, root: Place) -> units.Job:
    assert step.table is not None
    place = root / step.id
    inputs = step.input_artifacts(root)
    names = {role: a.name for role, a in flatten(inputs).items() if role not in step.rows}
    key = fingerprint([step.work.__name__, step.config, names])
    build = partial(step.work, step.config, _without(inputs, step.rows))
    if not step.rows:
        do: Any = partial(units.do_source, place=place, table=step.table)
        return units.Job(step.id, place / RECEIPTS, key, build, do, (None,))
    parents = [step.parents[role] for role in step.rows]
    tables = [parent.table for parent in parents if parent.table]
    if len(tables) < len(parents):
        bad = ", ".join(parent.name for parent in parents if not parent.table)
        raise StepError(f"step {step.name} maps rows of {bad}, which is not a table: correct the plan")
    do = partial(units.do_part, place=place, table=step.table, sources=tables)
    return units.Job(step.id, place / RECEIPTS, key, build, do, units.input_parts([p.artifact(root) for p in parents]))


def _without(inputs: Mapping[str, Any], roles: Collection[str], before: str = "") -> dict[str, Any]:
    """Nested inputs without the leaves at some paths: a work shared by several steps must not differ by their rows."""
    return {
        name: _without(value, roles, f"{before}{name}.") if isinstance(value, Mapping) else value
        for name, value in inputs.items()
        if f"{before}{name}" not in roles
    }


def _run_directory(wave: Sequence[Step], root: Place, progress: Progress) -> None:
    (step,) = wave
    out = root / step.id
    inputs = step.input_artifacts(root)
    started = time.perf_counter()
    progress.start(step.id, None, 0, out)

    def fan_out(label: str, work: Any, arguments: dict[str, Any], values: list[Any]) -> list[dict[str, Any]]:
        """See ``cluster.step.FanOut``."""
        job = units.Job(
            step.id, out / RECEIPTS / label, label, partial(work, **arguments), units.do_unit, tuple(values)
        )
        done = read_receipts(job.receipts)
        for _, receipt in units.perform([job], [set(done)], step.resources, progress.say):
            done[receipt.unit] = receipt
            progress.note(step.id, f"{label} {len(done)}/{len(values)}")
        return [done[unit].facts for unit in range(len(values))]

    facts = step.work(step.config, inputs, out, fan_out)
    _commit(step, root, [], started, progress, facts)


def _commit(
    step: Step, root: Place, receipts: Sequence[Receipt], started: float, progress: Progress, facts: Any = None
) -> None:
    """Check the rejects, write the manifest, and drop the receipts, which it now stands for."""
    place = root / step.id
    rejects = merge_rejects(receipts)
    rejected, rows = sum(r.count for r in rejects.values()), sum(r.rows for r in receipts)
    records = rows if step.rows else rows + rejected
    if rejected > step.max_rejects * records:
        raise StepError(_too_many(step, rejected, records, rejects))
    manifest = Manifest(
        step=step.name,
        fingerprint=step.fingerprint,
        version=step.version,
        config=redact_secrets(step.config.model_dump(mode="json")),
        inputs={role: parent.id for role, parent in step.parents.items()},
        table=step.table.name if step.table else None,
        parts=tuple(part for r in receipts for part in r.parts),
        rows=rows,
        rejects=rejects,
        seconds=round(time.perf_counter() - started, 3),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        software={"python": platform.python_version(), **{name: _version(name) for name in SOFTWARE}},
        facts=facts or {},
    )
    (place / MANIFEST).write(json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False).encode())
    (place / RECEIPTS).delete()
    progress.finish(step.id, manifest)


def _too_many(step: Step, rejected: int, records: int, rejects: Any) -> str:
    lines = [f"  {reason}: {r.count}, for example {'; '.join(r.examples[:3])}" for reason, r in rejects.items()]
    return (
        f"step {step.name} rejected {rejected} of {records} records, more than max_rejects = {step.max_rejects:g} "
        "allows:\n"
        + "\n".join(lines)
        + "\nMend the data, or allow more with --set run.max_rejects=SHARE; finished parts are kept."
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
