"""Complete artifacts for tests, written as the executor writes them."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.artifact import MANIFEST, Artifact, Manifest, Part, write_part
from cluster.storage import Place
from cluster.table import Table


def table_artifact(directory: Path, table: Table, *parts: list[dict[str, Any]] | pa.Table) -> Artifact:
    """A table artifact whose parts hold these rows."""
    place = Place.of(directory)
    written = []
    for number, rows in enumerate(parts):
        write_part(
            place / f"part-{number:05d}.parquet", table.conform(rows if isinstance(rows, pa.Table) else table.of(rows))
        )
        written.append(Part(file=f"part-{number:05d}.parquet", rows=len(rows)))
    return _complete(place, table.name, tuple(written))


def directory_artifact(directory: Path, facts: dict[str, Any] | None = None) -> Artifact:
    """A directory artifact whose files are there already."""
    return _complete(Place.of(directory), None, (), facts)


def _complete(
    place: Place, table: str | None, parts: tuple[Part, ...], facts: dict[str, Any] | None = None
) -> Artifact:
    manifest = Manifest(
        step=place.name.partition("@")[0],
        fingerprint=place.name.partition("@")[2] or "0" * 12,
        version=1,
        config={},
        inputs={},
        table=table,
        parts=parts,
        rows=sum(part.rows for part in parts),
        seconds=0.0,
        created="2026-01-01T00:00:00Z",
        software=(),
        facts=facts or {},
    )
    (place / MANIFEST).write(manifest.model_dump_json().encode())
    return Artifact(place)
