"""Artifacts: directories named ``<root>/<step>@<fingerprint>/`` that are complete when their manifest exists.

The manifest is written last, in one piece, so its existence means that all else is there. It records what made the
artifact (config, inputs, versions), what is in it (parts, rows) and what is not (rejects by reason, with examples).
Nothing in a complete artifact ever changes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from cluster.errors import StepError
from cluster.retry import patiently
from cluster.storage import Place
from cluster.table import good

MANIFEST = "manifest.json"


class Part(BaseModel):
    """One parquet file of a table artifact."""

    model_config = ConfigDict(frozen=True)
    file: str
    rows: int


class Rejected(BaseModel):
    """How many records were rejected for one reason, and the first of them as ``where: text``."""

    model_config = ConfigDict(frozen=True)
    count: int
    examples: tuple[str, ...] = ()


class Manifest(BaseModel):
    """What an artifact is, written when it is complete.

    ``seconds`` is time at work: the sum over the units of a table step, the time of a directory step's last call.
    ``software`` holds each distinct set of versions that its units were made with; more than one deserves a look.
    """

    model_config = ConfigDict(frozen=True)
    step: str
    fingerprint: str
    version: int
    config: Any
    inputs: dict[str, str]
    table: str | None
    parts: tuple[Part, ...] = ()
    rows: int = 0
    rejects: dict[str, Rejected] = {}
    seconds: float
    created: str
    software: tuple[dict[str, str], ...] = ()
    facts: dict[str, Any] = {}


@dataclass(frozen=True)
class Artifact:
    """A complete artifact: where it is and its manifest."""

    place: Place

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, read once. Raises StepError when the artifact is not complete."""
        if not (self.place / MANIFEST).exists():
            raise StepError(f"{self.place.redacted} is not complete (no {MANIFEST}): run the step that makes it first")
        return Manifest.model_validate_json((self.place / MANIFEST).read())

    @property
    def name(self) -> str:
        """``step@fingerprint``."""
        return self.place.name

    @property
    def rows(self) -> int:
        """Rows in all parts, rejected ones included."""
        return self.manifest.rows

    @property
    def parts(self) -> list[Place]:
        """The parquet files, in order."""
        return [self.place / part.file for part in self.manifest.parts]

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The good rows, one part after another: memory holds one part."""
        for part in self.parts:
            yield good(read_part(part, columns))

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """All good rows at once: for tables known to be small (queries, qrels, results)."""
        tables = list(self.tables(columns))
        if not tables:
            raise StepError(f"{self.name} holds no rows")
        return pa.concat_tables(tables)

    def directory(self) -> Path:
        """A local directory with the artifact's files: its own, or a copy made once per node."""
        return self.place.fetch()


def read_part(part: Place, columns: list[str] | None = None) -> pa.Table:
    """Read one part, with its rejected rows. ``reject`` is always among the columns."""
    names = None if columns is None else [*columns, "reject"]

    def read() -> pa.Table:
        with part.open() as file:
            return pq.read_table(file, columns=names)

    return patiently(read)


def read_schema(part: Place) -> pa.Schema:
    """The columns of one part and their types."""

    def read() -> pa.Schema:
        with part.open() as file:
            return pq.read_schema(file)

    return patiently(read)


def write_part(part: Place, rows: pa.Table) -> None:
    """Write one part: whole or not at all. zstd: half of snappy's bytes on text at the same read speed."""
    with part.writing() as file:
        pq.write_table(rows, file, compression="zstd")
