"""Units of work on Ray Data: each unit is done once, by a pool of actors, wherever the cluster has room.

``perform`` streams the units that have no receipt through an autoscaling actor pool and yields their receipts as they
come. Jobs that share a key share what was built for them: seven languages are encoded with one load of the model.
Cost: about 2.5 s per call for starting the pool (measured on 2 cores), plus the works' own ``__init__`` per actor.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from cluster import session
from cluster.artifact import Artifact, Part, read_part, write_part
from cluster.component import Resources
from cluster.errors import StepError, TableError
from cluster.receipt import Receipt, Tally, receipt_place, write_receipt
from cluster.storage import Place
from cluster.table import Table

ERROR = "error.txt"  # beside the receipts: the trace of the unit that failed last


@dataclass(frozen=True)
class Job:
    """Units that belong together: where their receipts go, how to build the work, how to do one unit with it.

    ``key`` names what ``build`` makes; jobs with equal keys share it.
    """

    name: str
    receipts: Place
    key: str
    build: Callable[[], Any]
    do: Callable[[Any, int, Any], Receipt]
    units: tuple[Any, ...]


class Runner:
    """The actor: builds a job's work when it first meets the job, keeps the last one built, does a unit per call."""

    def __init__(self, jobs: Sequence[Job]):
        self.jobs = jobs
        self.key: str | None = None
        self.work: Any = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        job, unit = self.jobs[int(batch["job"][0])], int(batch["unit"][0])
        try:
            return {"job": batch["job"], "receipt": [self._receipt(job, unit).model_dump_json()], "error": [""]}
        except Exception as error:
            # told by the driver: not every exception survives being sent, and Ray would print the others twice
            (job.receipts / ERROR).write(traceback.format_exc().encode())
            return {"job": batch["job"], "receipt": [""], "error": [f"{type(error).__name__}: {error}"]}

    def _receipt(self, job: Job, unit: int) -> Receipt:
        done = receipt_place(job.receipts, unit)
        if done.exists():  # Ray retries a lost task from its start: what it finished stays finished
            return Receipt.model_validate_json(done.read())
        if self.key != job.key:
            self.work = None  # the old model goes before the new one comes
            self.work, self.key = job.build(), job.key
        receipt = job.do(self.work, unit, job.units[unit])
        write_receipt(job.receipts, receipt)
        return receipt


def perform(jobs: Sequence[Job], done: Sequence[set[int]], resources: Resources) -> Iterator[tuple[int, Receipt]]:
    """Do all units of ``jobs`` that are not in ``done`` and yield (job number, receipt) as they finish.

    Raises:
        StepError: a unit raised; the others' receipts are kept.
    """
    todo = [{"job": j, "unit": u} for j, job in enumerate(jobs) for u in range(len(job.units)) if u not in done[j]]
    if not todo:
        return
    session.connect()
    import ray.data
    from ray.exceptions import RayError

    pool = ray.data.ActorPoolStrategy(
        min_size=1,
        initial_size=max(1, min(len(todo), resources.actors or len(todo), int(session.cpus() // resources.cpus))),
        max_size=min(len(todo), resources.actors or len(todo)),
    )
    units = ray.data.from_items(todo, override_num_blocks=len(todo)).map_batches(
        Runner,
        fn_constructor_kwargs={"jobs": jobs},
        batch_size=1,
        compute=pool,
        num_cpus=resources.cpus,
        num_gpus=resources.gpus or None,
        memory=resources.memory_gb * 2**30 if resources.memory_gb else None,
    )
    try:
        for row in units.iter_rows():
            if row["error"]:
                job = jobs[int(row["job"])]
                raise StepError(_failed(job.name, f"{row['error']}\nThe trace is in {(job.receipts / ERROR).shown}"))
            yield int(row["job"]), Receipt.model_validate_json(row["receipt"])
    except RayError as error:
        raise StepError(_failed(", ".join(sorted({jobs[t["job"]].name for t in todo})), str(error))) from error


def _failed(name: str, reason: str) -> str:
    return (
        f"step {name} failed: {reason}\n"
        "What was finished is kept. Mend the cause and run the same command again; it goes on from there."
    )


def do_part(work: Any, unit: int, part: str, *, place: Place, table: Table, source: Table) -> Receipt:
    """Map one part of the input table to one part of the output: the same keys, in the same order, within contract."""
    started = time.perf_counter()
    rows = read_part(Place(part))
    out = table.conform(work(rows))
    came, went = source.keys(rows), table.keys(out)
    if came.rename_columns(list(table.key)) != went:
        raise TableError(
            f"table {table.name}: expected the {len(rows)} keys of {Place(part).shown} in order, got {len(out)} rows "
            "with other keys. A step writes a row for each row it reads; one that cannot be done gets a reason in "
            "`reject`."
        )
    file = f"part-{unit:05d}.parquet"
    write_part(place / file, out)
    fresh = pc.and_(pc.is_valid(out["reject"]), pc.is_null(rows["reject"]))  # not those that came rejected
    keys = (" ".join(map(str, key.values())) for key in went.filter(fresh).to_pylist())
    reasons = out["reject"].filter(fresh).to_pylist()
    return Receipt(
        unit=unit,
        parts=(Part(file=file, rows=len(out)),),
        rejects=Tally(zip(reasons, keys, strict=True)).rejects(),
        seconds=time.perf_counter() - started,
        facts=getattr(work, "facts", None) or {},
    )


def do_source(work: Any, unit: int, _: Any, *, place: Place, table: Table) -> Receipt:
    """Stream a table from outside. A part that a killed run wrote is not written again; the stream is read again,
    since only its front leads to where it stopped."""
    started = time.perf_counter()
    parts: list[Part] = []
    tally = Tally()
    for rows, rejected in work():
        tally.add((r.reason, f"{r.where}: {r.text}" if r.text else r.where) for r in rejected)
        if not len(rows):
            continue
        file = f"part-{len(parts):05d}.parquet"
        if not (place / file).exists():
            write_part(place / file, table.conform(rows))
        parts.append(Part(file=file, rows=len(rows)))
    return Receipt(unit=unit, parts=tuple(parts), rejects=tally.rejects(), seconds=time.perf_counter() - started)


def do_unit(work: Any, unit: int, value: Any) -> Receipt:
    """Do one unit of a directory step."""
    started = time.perf_counter()
    facts = work(value)
    return Receipt(unit=unit, facts=facts or {}, seconds=time.perf_counter() - started)


def input_parts(artifact: Artifact) -> tuple[str, ...]:
    """The units of a row step: the URIs of its input's parts."""
    return tuple(part.uri for part in artifact.parts)
