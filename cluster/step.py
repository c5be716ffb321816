"""Steps: a name, what it does, its config, the artifacts that it reads, the table that it writes.

There are three forms:

    rows       ``rows`` names the inputs whose parts are mapped, one to one, by a ``RowWork`` built once per actor
    source     ``rows`` is empty and ``table`` is set: a ``SourceWork`` streams the table from outside
    directory  ``table`` is None: a ``DirectoryWork`` function writes files below ``out``

Aligned rows: tables that descend from one ingest have the same keys in the same parts, by the law that a row in is a
row out. A row work may therefore be given the same part of several of them: a translation beside its original, the
rankings of two systems. The executor checks that they are equal in keys.

The fingerprint covers the name of the work, its version, the config and the inputs' fingerprints; ``Resources``,
``Speed`` and ``max_rejects`` decide how a step runs, not what it makes, and are left out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import pyarrow as pa

from cluster.artifact import Artifact
from cluster.component import Component, Resources, fingerprint
from cluster.errors import RecipeError
from cluster.storage import Place
from cluster.table import Reject, Table


class RowWork(Protocol):
    """Maps a part to a part: the same keys in the same order. Built once per actor, so models load in ``__init__``.

    Called with the same part of each table that the step's ``rows`` name, in that order. ``inputs`` holds the other
    artifacts, nested as the step's inputs are. An attribute ``facts``, a dictionary, says something of the last call
    that no row holds (JSON); the manifest has those of all parts as one (``cluster.receipt.merge_facts``).
    """

    def __init__(self, config: Any, inputs: Mapping[str, Any]) -> None: ...

    def __call__(self, *parts: pa.Table) -> pa.Table: ...


class SourceWork(Protocol):
    """Streams a table from outside: an iterator of rows and of the records that could not become rows.

    A call may be repeated: keep no state between calls.
    """

    def __init__(self, config: Any, inputs: Mapping[str, Any]) -> None: ...

    def __call__(self) -> Iterator[tuple[pa.Table, list[Reject]]]: ...


class UnitWork(Protocol):
    """Does one unit of a directory step (an index shard, say) on some node; returns facts for its receipt (JSON)."""

    def __call__(self, unit: Any) -> dict[str, Any]: ...


class DirectoryWork(Protocol):
    """Writes the files of an artifact below ``out``; returns facts for its manifest. After a crash it is called again
    with what it left behind still there, so it can go on from its own checkpoints. ``fan_out`` spreads units of work
    over the cluster, each done once."""

    def __call__(self, config: Any, inputs: Mapping[str, Any], out: Place, fan_out: "FanOut") -> dict[str, Any]: ...


class FanOut(Protocol):
    """``fan_out(label, work, arguments, units)``: build ``work(**arguments)`` in actors, call it on each of ``units``
    (JSON values) that has no receipt yet, and return the receipts' facts in the order of ``units``."""

    def __call__(
        self, label: str, work: Callable[..., UnitWork], arguments: dict[str, Any], units: list[Any]
    ) -> list[dict[str, Any]]: ...


@dataclass(frozen=True, eq=False)
class Step:
    """One node of a plan. Steps are equal when their names and fingerprints are: they are the same artifact.

    ``inputs`` may nest: ``inputs["docs"]["zh"]``. ``rows`` names the inputs whose parts are mapped, as paths:
    ``("docs.zh", "docs.en")``; the first gives the keys, the others are tables with the same keys, part by part.
    ``verb`` is what the step does in a word ("encode"); the recipe sets resources by it. ``workers`` is how many actors
    of these resources a directory step needs all at once, as a training does; it does not start where there are fewer.
    """

    name: str
    work: Any
    config: Component
    inputs: Mapping[str, Any] = field(default_factory=dict)
    table: Table | None = None
    rows: tuple[str, ...] = ()
    resources: Resources = Resources()
    max_rejects: float = 0.0
    verb: str = ""
    workers: int = 1

    @property
    def version(self) -> int:
        """The version of the work, raised by whoever changes what it makes at equal config and inputs."""
        return int(getattr(self.work, "version", 1))

    @cached_property
    def parents(self) -> "dict[str, Step]":
        """The steps that this one reads, by their path among the inputs: ``docs.zh``."""
        return flatten(self.inputs)

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits of all that can change the content."""
        return fingerprint_step(
            self.work,
            self.config,
            {role: step.fingerprint for role, step in self.parents.items()},
            self.rows,
            self.table.name if self.table else None,
        )

    @property
    def resources_key(self) -> str:
        """The key of the recipe that sets these resources, for messages."""
        return f"resources.{self.verb}" if self.verb else f"{self.name}.resources"

    @property
    def id(self) -> str:
        """``name@fingerprint``: the directory's name."""
        return f"{self.name}@{self.fingerprint}"

    def artifact(self, root: Place) -> Artifact:
        """Where this step's artifact is, or will be."""
        return Artifact(root / self.id)

    def input_artifacts(self, root: Place) -> dict[str, Any]:
        """The artifacts that this step reads, nested as its inputs are."""
        return map_leaves(self.inputs, lambda step: step.artifact(root))


def fingerprint_step(
    work: Any, config: Component, inputs: Mapping[str, str], rows: Sequence[str], table: str | None
) -> str:
    """The fingerprint of a step of this form; ``inputs`` holds the fingerprints of its inputs by their paths."""
    version = int(getattr(work, "version", 1))
    form = {"work": work.__name__, "config": config, "inputs": dict(inputs), "rows": list(rows), "table": table}
    return fingerprint(form | ({"version": version} if version > 1 else {}))


def flatten(inputs: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """The leaves of nested inputs by their paths: ``{"docs": {"zh": x}}`` gives ``{"docs.zh": x}``."""
    leaves: dict[str, Any] = {}
    for name, value in inputs.items():
        leaves |= flatten(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return leaves


def map_leaves(inputs: Mapping[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    """Nested inputs with ``function`` applied to each leaf."""
    return {
        name: map_leaves(value, function) if isinstance(value, Mapping) else function(value)
        for name, value in inputs.items()
    }


def list_steps(targets: Iterable[Step], is_wanted: Callable[[Step], bool] = lambda step: True) -> list[Step]:
    """The targets and all that they read, every step once, inputs first. A step that is not wanted is left out, and so
    is what is read by such steps alone."""
    found: dict[str, Step] = {}

    def visit(step: Step) -> None:
        if step.id in found or not is_wanted(step):
            return
        for parent in step.parents.values():
            visit(parent)
        found[step.id] = step

    for target in targets:
        visit(target)
    return list(found.values())


def find_steps(steps: Iterable[Step], name: str, where: str) -> list[Step]:
    """The steps of this name, or of this name and fingerprint. Raises RecipeError when there is none."""
    steps = list(steps)
    found = [step for step in steps if name in (step.name, step.id)]
    if not found:
        known = dict.fromkeys(step.name for step in steps)
        raise RecipeError(f"no step {name!r} in {where}; it has {', '.join(known)}")
    return found
