"""Tasks: the kinds of work that a pool of actors does unit by unit.

A task travels to the actors whole. An actor calls ``build`` once, for a model to be loaded, and ``do`` for each unit;
tasks with the same ``key`` share what was built. The receipt of a unit is written by the actor, after its files.

    PartTask    a row step: unit n maps part n of the inputs to part n of the output
    SourceTask  a source step: its one unit streams the whole table
    UnitTask    a fan-out of a directory step: unit n is the n-th of its values
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from cluster.artifact import Artifact, Part, read_part, write_part
from cluster.component import Component, fingerprint
from cluster.errors import StepError, TableError
from cluster.lease import Fence
from cluster.progress import PROGRESS
from cluster.receipt import RECEIPTS, Receipt, Tally
from cluster.step import Step, flatten
from cluster.storage import Place
from cluster.table import Table


class Task(Protocol):
    """See the module: ``units`` is their number, ``fence`` the right to write below the artifact."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def fence(self) -> Fence: ...

    @property
    def receipts(self) -> Place: ...

    @property
    def units(self) -> int: ...

    def build(self) -> Any: ...

    def do(self, work: Any, unit: int) -> Receipt: ...


@dataclass(frozen=True)
class _TableTask:
    """What row steps and source steps share: ``work(config, inputs)`` is built, a table is written."""

    name: str
    key: str
    fence: Fence
    work: Callable[[Any, Any], Any]
    config: Component
    inputs: Mapping[str, Any]
    table: Table

    @property
    def receipts(self) -> Place:
        """Where the units' receipts stand."""
        return self.fence.artifact / RECEIPTS

    def build(self) -> Any:
        """Build the step's work."""
        return self.work(self.config, self.inputs)

    def _write(self, unit: int, rows: pa.Table) -> Part:
        """Write a part of the output, unless the artifact is no longer this driver's to write."""
        part = Part(file=f"part-{unit:05d}.parquet", rows=len(rows))
        self.fence.check()
        write_part(self.fence.artifact / part.file, rows)
        return part


@dataclass(frozen=True)
class PartTask(_TableTask):
    """Maps the same part of some aligned tables to one part of the output: the keys of the first, in the same order.

    ``parts`` holds for each unit the URIs of its part in each of the aligned tables ``sources``.
    """

    sources: tuple[Table, ...]
    parts: tuple[tuple[str, ...], ...]

    @property
    def units(self) -> int:
        """One per part."""
        return len(self.parts)

    def do(self, work: Any, unit: int) -> Receipt:
        """Map one part."""
        started = time.perf_counter()
        rows, keys = self._read(self.parts[unit])
        out = self.table.conform(work(*rows))
        if keys.rename_columns(list(self.table.key)) != self.table.keys(out):
            raise TableError(
                f"table {self.table.name}: expected the {len(keys)} keys of {Place(self.parts[unit][0]).redacted} in "
                f"order, got {len(out)} rows with other keys. A step writes a row for each row it reads; one that "
                "cannot be done gets a reason in `reject`."
            )
        part = self._write(unit, out)
        is_new = pc.and_(pc.is_valid(out["reject"]), pc.is_null(rows[0]["reject"]))  # not rejected before
        new_rejects = out.filter(is_new)
        rejected_keys = (" ".join(map(str, key.values())) for key in self.table.keys(new_rejects).to_pylist())
        return Receipt(
            unit=unit,
            parts=(part,),
            rejects=Tally(zip(new_rejects["reject"].to_pylist(), rejected_keys, strict=True)).rejects(),
            seconds=time.perf_counter() - started,
            facts=getattr(work, "facts", None) or {},
        )

    def _read(self, uris: Sequence[str]) -> tuple[list[pa.Table], pa.Table]:
        """The unit's part of each aligned table, and the keys of the first, which the others must have."""
        rows = [read_part(Place(uri)) for uri in uris]
        first = self.sources[0]
        keys = first.keys(rows[0])
        for uri, other, source in zip(uris[1:], rows[1:], self.sources[1:], strict=True):
            if source.keys(other).rename_columns(list(first.key)) != keys:
                raise TableError(
                    f"{Place(uri).redacted} does not have the keys of {Place(uris[0]).redacted}: expected tables that "
                    "descend from one ingest, part by part. Correct the step's rows in the plan"
                )
        return rows, keys


@dataclass(frozen=True)
class SourceTask(_TableTask):
    """Streams a table from outside, and writes after each part how far it is.

    A part that a killed run wrote is not written again; the stream is read again, since only its front leads to where
    it stopped.
    """

    units: int = 1

    def do(self, work: Any, unit: int) -> Receipt:
        """Write the whole table."""
        started = time.perf_counter()
        place = self.fence.artifact
        parts: list[Part] = []
        tally = Tally()
        for rows, rejected in work():
            tally.add((r.reason, f"{r.where}: {r.text}" if r.text else r.where) for r in rejected)
            if not len(rows):
                continue
            file = f"part-{len(parts):05d}.parquet"
            if (place / file).exists():
                parts.append(Part(file=file, rows=len(rows)))
            else:
                parts.append(self._write(len(parts), self.table.conform(rows)))
            progress = {"rows": sum(part.rows for part in parts), "rejects": sum(tally.counts.values())}
            (place / PROGRESS).write(json.dumps(progress).encode())
        (place / PROGRESS).delete()
        return Receipt(unit=unit, parts=tuple(parts), rejects=tally.rejects(), seconds=time.perf_counter() - started)


@dataclass(frozen=True)
class UnitTask:
    """Units of a directory step, spread over the cluster; see ``cluster.step.FanOut``."""

    name: str
    label: str
    fence: Fence
    work: Callable[..., Any]
    arguments: Mapping[str, Any]
    values: tuple[Any, ...]

    @property
    def key(self) -> str:
        """No other task shares what is built."""
        return self.label

    @property
    def receipts(self) -> Place:
        """Where the units' receipts stand."""
        return self.fence.artifact / RECEIPTS / self.label

    @property
    def units(self) -> int:
        """One per value."""
        return len(self.values)

    def build(self) -> Any:
        """Build the work with its arguments."""
        return self.work(**self.arguments)

    def do(self, work: Any, unit: int) -> Receipt:
        """Do one unit."""
        started = time.perf_counter()
        facts = work(self.values[unit])
        self.fence.check()
        return Receipt(unit=unit, facts=facts or {}, seconds=time.perf_counter() - started)


def task_of(step: Step, root: Place, fence: Fence) -> PartTask | SourceTask:
    """The task of a table step.

    Raises:
        StepError: the plan maps rows of what is not a table, or of tables that are not cut into the same parts.
    """
    assert step.table is not None
    inputs = step.input_artifacts(root)
    others = _without(inputs, step.rows)
    names = {role: artifact.name for role, artifact in flatten(others).items()}
    shared = {
        "name": step.id,
        "key": fingerprint([step.work.__name__, step.config, names]),
        "fence": fence,
        "work": step.work,
        "config": step.config,
        "inputs": others,
        "table": step.table,
    }
    if not step.rows:
        return SourceTask(**shared)
    parents = [step.parents[role] for role in step.rows]
    sources = tuple(parent.table for parent in parents if parent.table)
    if len(sources) < len(parents):
        bad = ", ".join(parent.name for parent in parents if not parent.table)
        raise StepError(f"step {step.name} maps rows of {bad}, which is not a table: correct the plan")
    return PartTask(**shared, sources=sources, parts=_aligned_parts([p.artifact(root) for p in parents]))


def _aligned_parts(artifacts: Sequence[Artifact]) -> tuple[tuple[str, ...], ...]:
    """The units of a row step: for each part the URIs of this part in each of the aligned artifacts."""
    cuts = [[part.rows for part in artifact.manifest.parts] for artifact in artifacts]
    if odd := next((a.name for a, cut in zip(artifacts, cuts, strict=True) if cut != cuts[0]), None):
        raise StepError(
            f"{odd} is not cut into the same parts as {artifacts[0].name}: expected tables that descend from one "
            "ingest. Correct the step's rows in the plan"
        )
    return tuple(zip(*([part.uri for part in artifact.parts] for artifact in artifacts), strict=True))


def _without(inputs: Mapping[str, Any], roles: Sequence[str], before: str = "") -> dict[str, Any]:
    """Nested inputs without the leaves at some paths: a work shared by several steps must not differ by their rows."""
    return {
        name: _without(value, roles, f"{before}{name}.") if isinstance(value, Mapping) else value
        for name, value in inputs.items()
        if f"{before}{name}" not in roles
    }
