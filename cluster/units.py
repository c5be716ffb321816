"""Units of work on Ray Data: each unit is done once, by a pool of actors, wherever the cluster has room.

``perform`` streams the units that have no receipt through an autoscaling actor pool and yields their receipts as they
come. Jobs that share a key share what was built for them: seven languages are encoded with one load of the model.
A unit whose disk or store fails for a moment is done again; one that ends its worker three times ends the run.
Cost: about 2.5 s per call for starting the pool (measured on 2 cores), plus the works' own ``__init__`` per actor.
"""

import json
import platform
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from cluster import session
from cluster.artifact import Artifact, Part, read_part, write_part
from cluster.component import Resources
from cluster.errors import StepError, TableError
from cluster.progress import PROGRESS
from cluster.receipt import Receipt, Tally, receipt_place, write_receipt
from cluster.retry import patiently
from cluster.storage import Place
from cluster.table import Table

ERROR = "error.txt"  # beside the receipts: the trace of the unit that failed last
SEEN = "driver"  # written by the driver into the run's directory, for every node to see
ATTEMPTS = 3  # times that a unit may end its worker in one run; Ray itself would restart the worker for ever


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
    """The actor: builds a job's work when it first meets the job, keeps the last one built, does a unit per call.

    ``run`` names a directory beside the receipts that belongs to this call of ``perform``: the driver leaves a file
    there for each node to see, and each unit the number of times that it was begun. What is begun a second time ended
    its worker the first time, since an error comes back as a value.
    """

    def __init__(self, jobs: Sequence[Job], run: str):
        self.jobs, self.run = jobs, run
        self.key: str | None = None
        self.work: Any = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        job, unit = self.jobs[int(batch["job"][0])], int(batch["unit"][0])
        answer = {"job": batch["job"], "receipt": [""], "error": [""], "trace": [""]}
        try:
            return answer | {"receipt": [self._receipt(job, unit).model_dump_json()]}
        except Exception as error:
            # told by the driver: not every exception survives being sent, and Ray would print the others twice
            return answer | {"error": [f"{type(error).__name__}: {error}"], "trace": [traceback.format_exc()]}

    def _receipt(self, job: Job, unit: int) -> Receipt:
        run = job.receipts / self.run
        if run.is_local and not (run / SEEN).exists():
            raise StepError(
                f"node {platform.node()} does not see {run.redacted}, which the driver wrote: the root is on a disk of "
                "another machine. Set root to an s3:// URI, or to a directory that every node mounts"
            )
        done = receipt_place(job.receipts, unit)
        if done.exists():  # Ray retries a lost task from its start: what it finished stays finished
            return Receipt.model_validate_json(done.read())
        begun = run / f"{unit:05d}"
        times = int(begun.read()) if begun.exists() else 0
        if times == ATTEMPTS:
            raise StepError(
                f"unit {unit} ended its worker {ATTEMPTS} times: out of memory? Give the step more memory per worker "
                "(resources.STEP.memory_gb) or fewer workers per node (resources.STEP.cpus), or make smaller parts"
            )
        begun.write(str(times + 1).encode())
        return patiently(self._do, job, unit)

    def _do(self, job: Job, unit: int) -> Receipt:
        if self.key != job.key:
            self.work = self.key = None  # the old model goes before the new one comes
            self.work, self.key = job.build(), job.key
        receipt = job.do(self.work, unit, job.units[unit])
        write_receipt(job.receipts, receipt)
        return receipt


def perform(
    jobs: Sequence[Job], done: Sequence[set[int]], resources: Resources, tell: Callable[[str], None]
) -> Iterator[tuple[int, Receipt]]:
    """Do all units of ``jobs`` that are not in ``done`` and yield (job number, receipt) as they finish.

    ``tell`` is given a line for the user when the run has to wait for nodes.

    Raises:
        StepError: a unit raised, or no worker can ever have its resources; the others' receipts are kept.
    """
    todo = [{"job": j, "unit": u} for j, job in enumerate(jobs) for u in range(len(job.units)) if u not in done[j]]
    if not todo:
        return
    names = ", ".join(sorted({jobs[t["job"]].name for t in todo}))
    run = f"runs/{uuid.uuid4().hex}"
    for number in {t["job"] for t in todo}:
        (jobs[number].receipts / run / SEEN).write(b"")
    session.connect()
    import ray.data
    from ray.exceptions import RayError

    largest = min(len(todo), resources.actors or len(todo))
    units = ray.data.from_items(todo, override_num_blocks=len(todo)).map_batches(
        Runner,
        fn_constructor_kwargs={"jobs": jobs, "run": run},
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            min_size=1, initial_size=max(1, min(largest, _room(names, resources, tell))), max_size=largest
        ),
        num_cpus=resources.cpus,
        num_gpus=resources.gpus or None,
        memory=resources.memory_gb * 2**30 if resources.memory_gb else None,
    )
    try:
        for row in units.iter_rows():
            if row["error"]:
                job = jobs[int(row["job"])]
                (job.receipts / ERROR).write(row["trace"].encode())
                raise StepError(_failed(job.name, f"{row['error']}\nThe trace is in {(job.receipts / ERROR).redacted}"))
            yield int(row["job"]), Receipt.model_validate_json(row["receipt"])
    except RayError as error:
        raise StepError(_failed(names, str(error))) from error


def _room(names: str, resources: Resources, tell: Callable[[str], None]) -> int:
    """How many workers fit now. None at all is an error on this machine alone, and a wait where nodes may come."""
    room = session.room(resources)
    if room:
        return room
    wanted = f"{resources.cpus:g} CPUs"
    wanted += f", {resources.gpus:g} GPUs" if resources.gpus else ""
    wanted += f", {resources.memory_gb:g} GB of memory" if resources.memory_gb else ""
    if session.is_given():
        tell(f"{names}: waiting for a node with {wanted}; the cluster has none. It goes on when one comes")
        return 0
    raise StepError(
        f"step {names} needs {wanted} for each worker, more than this machine has. Set less in the recipe's "
        "[resources], as --set resources.STEP.cpus=1, or run it on a cluster"
    )


def _failed(name: str, reason: str) -> str:
    return (
        f"step {name} failed: {reason}\n"
        "What was finished is kept. Mend the cause and run the same command again; it goes on from there."
    )


def do_part(
    work: Any, unit: int, parts: Sequence[str], *, place: Place, table: Table, sources: Sequence[Table]
) -> Receipt:
    """Map the same part of some aligned tables to one part of the output: the keys of the first, in the same order."""
    started = time.perf_counter()
    inputs = [read_part(Place(part)) for part in parts]
    keys_in = sources[0].keys(inputs[0])
    for part, rows, source in zip(parts[1:], inputs[1:], sources[1:], strict=True):
        if source.keys(rows).rename_columns(list(sources[0].key)) != keys_in:
            raise TableError(
                f"{Place(part).redacted} does not have the keys of {Place(parts[0]).redacted}: expected tables that "
                "descend from one ingest, part by part. Correct the step's rows in the plan"
            )
    rows = inputs[0]
    out = table.conform(work(*inputs))
    keys_out = table.keys(out)
    if keys_in.rename_columns(list(table.key)) != keys_out:
        raise TableError(
            f"table {table.name}: expected the {len(rows)} keys of {Place(parts[0]).redacted} in order, got {len(out)} "
            "rows with other keys. A step writes a row for each row it reads; one that cannot be done gets a reason in "
            "`reject`."
        )
    file = f"part-{unit:05d}.parquet"
    write_part(place / file, out)
    fresh = pc.and_(pc.is_valid(out["reject"]), pc.is_null(rows["reject"]))  # not those that were rejected before
    keys = (" ".join(map(str, key.values())) for key in keys_out.filter(fresh).to_pylist())
    reasons = out["reject"].filter(fresh).to_pylist()
    return Receipt(
        unit=unit,
        parts=(Part(file=file, rows=len(out)),),
        rejects=Tally(zip(reasons, keys, strict=True)).rejects(),
        seconds=time.perf_counter() - started,
        facts=getattr(work, "facts", None) or {},
    )


def do_source(work: Any, unit: int, _: Any, *, place: Place, table: Table) -> Receipt:
    """Stream a table from outside, telling after each part how far it is. A part that a killed run wrote is not written
    again; the stream is read again, since only its front leads to where it stopped."""
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
        told = {"rows": sum(part.rows for part in parts), "rejects": sum(tally.counts.values())}
        (place / PROGRESS).write(json.dumps(told).encode())
    (place / PROGRESS).delete()
    return Receipt(unit=unit, parts=tuple(parts), rejects=tally.rejects(), seconds=time.perf_counter() - started)


def do_unit(work: Any, unit: int, value: Any) -> Receipt:
    """Do one unit of a directory step."""
    started = time.perf_counter()
    facts = work(value)
    return Receipt(unit=unit, facts=facts or {}, seconds=time.perf_counter() - started)


def input_parts(artifacts: Sequence[Artifact]) -> tuple[tuple[str, ...], ...]:
    """The units of a row step: for each part the URIs of this part in each of the aligned artifacts.

    Raises:
        StepError: the artifacts are not cut into the same parts.
    """
    cuts = [[part.rows for part in artifact.manifest.parts] for artifact in artifacts]
    if odd := next((a.name for a, cut in zip(artifacts, cuts, strict=True) if cut != cuts[0]), None):
        raise StepError(
            f"{odd} is not cut into the same parts as {artifacts[0].name}: expected tables that descend from one "
            "ingest. Correct the step's rows in the plan"
        )
    return tuple(zip(*([part.uri for part in artifact.parts] for artifact in artifacts), strict=True))
