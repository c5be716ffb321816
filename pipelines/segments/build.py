"""Building a segment: an index directory under the codec of an index artifact, and the DOCS of what is in it.

``build_new`` encodes documents and indexes them as the artifact was indexed, with its codec, cells or statistics in the
place of new ones. ``build_merged`` puts what is alive of all segments together: what is stored of a document is copied
to the bit, nothing is encoded. Both write to a local directory, in this process. Memory holds a part and what a shard
needs (see each kind of index).
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from cluster.artifact import MANIFEST, Artifact, Manifest, Part, read_part, write_part
from cluster.errors import StepError
from cluster.storage import Place
from cluster.table import Table, good
from pipelines.index import BuildShard, plan_shards
from pipelines.indexes import Index
from pipelines.indexes.bm25 import POSTINGS, STATISTICS
from pipelines.indexes.files import Docs, load_npy
from pipelines.segments.documents import PART_ROWS
from pipelines.segments.snapshot import Snapshot
from pipelines.tables import DOCS, VECTORS
from pipelines.vectors import read_vectors

SHARED = ("codec", STATISTICS)  # what the shards of an index share
NORM_ERROR = 0.02
Encode = Callable[[pa.Table], pa.Table]


@dataclass
class Built:
    """A segment in a local directory: its documents by language, and those that the encoder could not encode, as
    ``<lang>:<id>``, by the reason. ``vectors`` are parts of VECTORS by language, outside the directory; an index of
    words has none."""

    directory: Path
    docs: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    vectors: dict[str, list[str]] = field(default_factory=dict)


def read_kind(index: Place) -> Any:
    """The config of the kind of index that an artifact is."""
    first = json.loads((index / "index.json").read())["shards"][0]["name"]
    facts = json.loads((index / "shards" / first / "shard.json").read())
    return TypeAdapter(Index).validate_python(facts["index"])


def build_new(
    index: Place,
    rows: Mapping[str, Iterable[pa.Table]],
    encoders: Mapping[str, Encode],
    shard_rows: int,
    scratch: Path,
) -> Built:
    """Build a segment of new documents below ``scratch``. ``rows`` are tables of DOCS by language, ``encoders`` map
    DOCS to VECTORS by language; they are not used for an index of words.

    Raises:
        StepError: the vectors are not as those of the index, or no document could be encoded.
    """
    kind, built = read_kind(index), Built(scratch / "segment")
    builder = kind.build()
    inputs: dict[str, Artifact] = {}
    for lang, tables in rows.items():
        docs = _Parts(DOCS, built.directory / "docs" / lang)
        vectors = _Parts(VECTORS, scratch / "vectors" / lang)
        for table in tables:
            if builder.role == "docs":
                docs.write(table)
                continue
            encoded = VECTORS.conform(encoders[lang](table))
            _note_rejects(encoded, lang, built.left_out)
            is_good = pc.is_null(encoded["reject"])
            docs.write(table.filter(is_good))
            vectors.write(encoded.filter(is_good))
        if docs.rows:
            built.docs[lang] = docs.rows
            made = docs.complete()
            inputs[lang] = made if builder.role == "docs" else vectors.complete()
    if builder.role == "vectors":
        _check_vectors(index, kind.kind, inputs)
        built.vectors = {lang: [part.uri for part in artifact.parts] for lang, artifact in inputs.items()}
    if inputs:
        _index(index, kind, inputs, shard_rows, built.directory)
    return built


def build_merged(snapshot: Snapshot, shard_rows: int, scratch: Path) -> Built:
    """Build one segment of all documents of a snapshot that are not dead."""
    kind, built = read_kind(snapshot.index), Built(scratch / "segment")
    builder, shards = kind.build(), list[dict[str, Any]]()
    for lang in snapshot.langs:
        of_lang = snapshot.of_lang(lang)
        dead = {s.name: snapshot.read_dead(s).get(lang, []) for s in snapshot.state.segments}
        sources = [shard.place.fetch() for shard in of_lang]
        docs = Docs(sources)
        docs.hide([pa.array(dead[shard.segment], pa.large_string()) for shard in of_lang])
        kept = docs.living
        for number, first in enumerate(range(0, max(1, len(kept)), shard_rows)):
            directory = built.directory / "shards" / f"{lang}-{number:05d}"
            directory.mkdir(parents=True)
            made = builder.merge(sources, kept[first : first + shard_rows], directory)
            size = sum(file.stat().st_size for file in directory.iterdir())
            facts = {"name": directory.name, "lang": lang, **made, "bytes": size}
            (directory / "shard.json").write_text(json.dumps({"index": kind.model_dump(), **facts}))
            shards.append(facts)
        texts = _Parts(DOCS, built.directory / "docs" / lang)
        for table in _living_texts(snapshot, lang, dead):
            texts.write(table)
        texts.complete()
        built.docs[lang] = len(kept)
    _write_facts(snapshot.index, shards, built.directory)
    return built


def _index(index: Place, kind: Any, inputs: Mapping[str, Artifact], shard_rows: int, directory: Path) -> None:
    """Build the shards of a segment. What the index shares is linked to while they are built."""
    out, builder = Place.of(directory), kind.build()
    shared = [name for name in SHARED if (index / name).exists()]
    for name in shared:
        (directory / name).symlink_to((index / name).fetch(), target_is_directory=True)
    plans = plan_shards({builder.role: inputs}, builder.role, shard_rows)
    if builder.role == "docs":
        builder.prepare(plans, out, _do_here)  # the statistics are there: it counts terms and sums nothing
    work = BuildShard(kind, plans, out)
    shards = [work(number) for number in range(len(plans))]
    for name in shared:
        (directory / name).unlink()
    shutil.rmtree(directory / POSTINGS, ignore_errors=True)
    _write_facts(index, shards, directory)


def _write_facts(index: Place, shards: Sequence[Mapping[str, Any]], directory: Path) -> None:
    """Write ``index.json``: the facts of the artifact with these shards."""
    facts = json.loads((index / "index.json").read())
    facts |= {"docs": sum(shard["docs"] for shard in shards), "shards": list(shards)}
    (directory / "index.json").write_text(json.dumps(facts, indent=1))


def _do_here(label: str, work: Callable[..., Any], arguments: dict[str, Any], units: list[Any]) -> list[dict[str, Any]]:
    """A fan-out to this process."""
    made = work(**arguments)
    return [made(unit) for unit in units]


def _living_texts(snapshot: Snapshot, lang: str, dead: Mapping[str, Sequence[str]]) -> Iterator[pa.Table]:
    for segment in snapshot.state.segments:
        if segment.docs.get(lang):
            gone = pa.array(dead[segment.name], pa.string())
            for table in snapshot.docs_of(segment.name, lang).tables():
                yield table.filter(pc.invert(pc.is_in(table["doc_id"], value_set=gone)))


def _note_rejects(encoded: pa.Table, lang: str, left_out: dict[str, list[str]]) -> None:
    for doc_id, reason in zip(encoded["id"].to_pylist(), encoded["reject"].to_pylist(), strict=True):
        if reason is not None:
            left_out.setdefault(reason, []).append(f"{lang}:{doc_id}")


def _check_vectors(index: Place, kind: str, inputs: Mapping[str, Artifact]) -> None:
    """Raise StepError where vectors are not as wide, or for PLAID not as long, as those of the index."""
    dim = find_dim(index, kind)
    for lang, artifact in inputs.items():
        for part in artifact.parts:
            for rows in read_vectors(read_part(part)):
                if dim and rows.vectors_TN.shape[1] != dim:
                    raise StepError(
                        f"expected vectors of width {dim}, as in {index.name}, got {rows.vectors_TN.shape[1]} for "
                        f"documents in {lang}: encode them with the model that encoded the index's. Nothing was added"
                    )
                norms = np.linalg.norm(rows.vectors_TN.astype(np.float32), axis=1)
                if kind == "plaid" and np.abs(norms - 1).max() > NORM_ERROR:
                    raise StepError(
                        f"plaid stores vectors of norm 1, got norms from {norms.min():.3f} to {norms.max():.3f} for "
                        f"documents in {lang}: encode them with the model that encoded the index's. Nothing was added"
                    )


def find_dim(index: Place, kind: str) -> int:
    """The width of an index's vectors; 0 where it has none."""
    if kind == "plaid":
        return int(np.load((index / "codec").fetch() / "centroids.npy", mmap_mode="r").shape[1])
    for shard in json.loads((index / "index.json").read())["shards"]:
        if shard["docs"]:
            directory = (index / "shards" / shard["name"]).fetch()
            if kind == "exact":
                return int(load_npy(directory / "vectors.npy").shape[1])
            import faiss

            return int(faiss.read_index(str(directory / "index.faiss")).d)
    return 0


class _Parts:
    """A table artifact that is written part by part: rows are gathered until there are enough for a part."""

    def __init__(self, table: Table, directory: Path):
        self.table, self.place = table, Place.of(directory)
        self.rows = 0
        self._held: list[pa.Table] = []
        self._parts: list[Part] = []

    def write(self, rows: pa.Table) -> None:
        rows = good(rows)
        if len(rows):
            self._held.append(self.table.conform(rows))
            self.rows += len(rows)
        if sum(map(len, self._held)) >= PART_ROWS:
            self._flush()

    def complete(self) -> Artifact:
        """Write the manifest."""
        self._flush()
        name = self.place.name
        manifest = Manifest(
            step=name,
            fingerprint="",
            version=1,
            config={},
            inputs={},
            table=self.table.name,
            parts=tuple(self._parts),
            rows=self.rows,
            seconds=0.0,
            created=datetime.now(UTC).isoformat(),
        )
        (self.place / MANIFEST).write(manifest.model_dump_json().encode())
        return Artifact(self.place)

    def _flush(self) -> None:
        if self._held:
            rows, self._held = pa.concat_tables(self._held), []
            file = f"part-{len(self._parts):05d}.parquet"
            write_part(self.place / file, rows)
            self._parts.append(Part(file=file, rows=len(rows)))
