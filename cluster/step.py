"""Steps: a name, what it does, its config, the artifacts that it reads, the table that it writes.

There are three forms, told apart by what ``work`` is:

    rows       ``rows`` names the input whose parts are mapped, one to one, by a ``RowWork`` built once per actor
    source     ``rows`` is None and ``table`` is set: a ``SourceWork`` streams the table from outside
    directory  ``table`` is None: a ``DirectoryWork`` function writes files below ``out``

The fingerprint covers the name of the work, its version, the config and the inputs' fingerprints; ``Resources``,
``Speed`` and ``max_rejects`` decide how a step runs, not what it makes, and are left out.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import pyarrow as pa

from cluster.artifact import Artifact
from cluster.component import Component, Resources, fingerprint
from cluster.storage import Place
from cluster.table import Reject, Table


class RowWork(Protocol):
    """Maps a part to a part: the same keys in the same order. Built once per actor, so models load in ``__init__``."""

    def __init__(self, config: Any, inputs: Mapping[str, Artifact]) -> None: ...

    def __call__(self, rows: pa.Table) -> pa.Table: ...


class SourceWork(Protocol):
    """Streams a table from outside: an iterator of rows and of the records that could not become rows."""

    def __init__(self, config: Any, inputs: Mapping[str, Artifact]) -> None: ...

    def __call__(self) -> Iterator[tuple[pa.Table, list[Reject]]]: ...


class UnitWork(Protocol):
    """Does one unit of a directory step (an index shard, say) on some node; returns facts for its receipt (JSON)."""

    def __call__(self, unit: Any) -> dict[str, Any]: ...


class DirectoryWork(Protocol):
    """Writes the files of an artifact below ``out``; returns facts for its manifest. After a crash it is called again
    with what it left behind still there, so it can go on from its own checkpoints. ``fan_out`` spreads units of work
    over the cluster, each done once."""

    def __call__(
        self, config: Any, inputs: Mapping[str, Artifact], out: Place, fan_out: "FanOut"
    ) -> dict[str, Any]: ...


class FanOut(Protocol):
    """``fan_out(label, work, arguments, units)``: build ``work(**arguments)`` in actors, call it on each of ``units``
    (JSON values) that has no receipt yet, and return the receipts' facts in the order of ``units``."""

    def __call__(
        self, label: str, work: Callable[..., UnitWork], arguments: dict[str, Any], units: list[Any]
    ) -> list[dict[str, Any]]: ...


@dataclass(frozen=True, eq=False)
class Step:
    """One node of a plan. Steps are equal when their names and fingerprints are: they are the same artifact."""

    name: str
    work: Any
    config: Component
    inputs: Mapping[str, "Step"] = field(default_factory=dict)
    table: Table | None = None
    rows: str | None = None
    version: int = 1
    resources: Resources = Resources()
    max_rejects: float = 0.0

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits of all that can change the content."""
        return fingerprint(
            {
                "work": self.work.__name__,
                "version": self.version,
                "config": self.config,
                "inputs": {role: step.fingerprint for role, step in self.inputs.items()},
                "rows": self.rows,
                "table": self.table.name if self.table else None,
            }
        )

    @property
    def id(self) -> str:
        """``name@fingerprint``: the directory's name."""
        return f"{self.name}@{self.fingerprint}"

    def artifact(self, root: Place) -> Artifact:
        """Where this step's artifact is, or will be."""
        return Artifact(root / self.id)
