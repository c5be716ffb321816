"""Ingest: from a source to DOCS, QUERIES and QRELS, with each record that cannot become a row counted by its reason.

Entries stream: memory holds the rows of one part, and 8 bytes for each id that came before (see ``pipelines.ids``).
Beside the source's own rejects (``pipelines.sources.records``) there are three: a key that came before, and a judgement
of a query or of a document that the source does not have. A judgement of what the source does have, but in another
split or language, belongs to another table and is passed over.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from pydantic import Field, field_validator

from cluster.artifact import Artifact
from cluster.component import Component, fingerprint
from cluster.errors import StepError, StorageError
from cluster.table import Reject, Table
from pipelines import languages
from pipelines.ids import IdSet, batches
from pipelines.sources import AnySource
from pipelines.sources.base import Entry
from pipelines.sources.files import AbsentFileError, FileSource, TableName, identity
from pipelines.sources.records import DUPLICATE, SHOWN, UNKNOWN_DOC, UNKNOWN_QUERY
from pipelines.tables import DOCS, QRELS, QUERIES

ABSENT = "absent: "  # before why, in place of the content of files that are not here
BATCH = 8192  # ids looked up at a time: enough to hide numpy's overhead per call


class IngestConfig(Component):
    """What to ingest. ``content`` identifies what is in the source's files, whose paths are in no fingerprint: a moved
    collection keeps its artifacts, a changed one gets new ones."""

    source: AnySource
    lang: str
    split: str
    rows_per_part: int = Field(ge=1)
    content: str

    @field_validator("lang")
    @classmethod
    def _known(cls, code: str) -> str:
        return languages.check(code)

    @classmethod
    def of(cls, source: AnySource, lang: str, split: str, rows_per_part: int, table: TableName) -> "IngestConfig":
        """Make a config for one table; documents that every split shares are those of "all", and ingested once. Where
        the files are not here, the content says so, and the config is good for looking at a plan alone.

        Raises:
            RecipeError: the source has no such language or split.
        """
        try:
            found = identity(source, table, languages.check(lang), split)
        except (AbsentFileError, StorageError) as error:
            return cls(source=source, lang=lang, split=split, rows_per_part=rows_per_part, content=f"{ABSENT}{error}")
        if table == "docs" and found["files"] and found == identity(source, table, lang, "all"):
            split = "all"
        content = fingerprint(found)
        return cls(source=source, lang=lang, split=split, rows_per_part=rows_per_part, content=content)


class _Ingest:
    """A ``SourceWork`` for one table: entries in batches, each batch thinned by what only the whole table can tell."""

    table: Table
    name: TableName

    def __init__(self, config: IngestConfig, inputs: Mapping[str, Artifact]) -> None:
        self.config, self.inputs = config, inputs

    def __call__(self) -> Iterator[tuple[pa.Table, list[Reject]]]:
        """Yield tables of ``rows_per_part`` rows, the last one shorter, each with the rejects that came before it ends.

        A table is empty where rejects came and no rows.

        Raises:
            StepError: the source gives nothing at all for this language and split.
        """
        rows: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        size, empty, seen = self.config.rows_per_part, True, IdSet()
        for batch in batches(self._entries(), min(BATCH, size)):
            empty = False
            for entry in self._told_apart(batch, seen):
                if row := _good(entry):
                    rows.append(row)
                else:
                    rejects.append(_reject(entry))
                if len(rows) == size:
                    yield self.table.of(rows), rejects
                    rows, rejects = [], []
                elif len(rejects) == size:  # a broken file must not fill the memory
                    yield self.table.of([]), rejects
                    rejects = []
        if rows or rejects:
            yield self.table.of(rows), rejects
        if empty:
            raise StepError(self._nothing())

    def _entries(self) -> Iterator[Entry]:
        read = getattr(self.config.source, self.name)
        return iter(read(self.config.lang, self.config.split))

    def _told_apart(self, batch: list[Entry], seen: IdSet) -> Iterator[Entry]:
        """The batch with the reason "duplicate id" on each key that came before."""
        keys = [self._key(row) for row in map(_good, batch) if row]
        new = iter(seen.add(keys))
        for entry in batch:
            yield entry if not _good(entry) or next(new) else entry._replace(reject=DUPLICATE)

    def _key(self, row: dict[str, Any]) -> str:
        first, *others = [row[name] for name in self.table.key]
        return f"{len(first)} {first} {' '.join(others)}" if others else first

    def _nothing(self) -> str:
        config = self.config
        return (
            f"source {config.source.kind} gives no {self.name} in {config.lang} for split {config.split!r}: expected "
            "at least one. Choose a language and a split that it has"
        )


class IngestDocs(_Ingest):
    """A ``SourceWork`` that writes DOCS."""

    table, name = DOCS, "docs"


class IngestQueries(_Ingest):
    """A ``SourceWork`` that writes QUERIES. A query without judgements is one like any other."""

    table, name = QUERIES, "queries"


class IngestQrels(_Ingest):
    """A ``SourceWork`` that writes QRELS for the rows of ``inputs["queries"]`` and ``inputs["docs"]``.

    Ids that are in neither are looked up among all ids of the source, whose files are read once more, only if needed.
    """

    table, name = QRELS, "qrels"

    def _entries(self) -> Iterator[Entry]:
        queries = _Known("query_id", self.inputs["queries"], self.config.source, "queries")
        docs = _Known("doc_id", self.inputs["docs"], self.config.source, "docs")
        for batch in batches(super()._entries(), BATCH):
            yield from docs.keep(queries.keep(batch, UNKNOWN_QUERY), UNKNOWN_DOC)


class _Known:
    """The ids of an artifact, and behind them those that the source has in other splits and languages."""

    def __init__(self, column: str, artifact: Artifact, source: Any, table: TableName) -> None:
        self._column, self._source, self._table = column, source, table
        self._here = IdSet()
        self._elsewhere: IdSet | None = None
        for rows in artifact.tables([column]):
            self._here.add(rows[column].to_pylist())

    def keep(self, batch: list[Entry], reason: str) -> list[Entry]:
        """The batch without what belongs elsewhere, and ``reason`` on each entry whose id is nowhere."""
        ids = [row[self._column] for row in map(_good, batch) if row]
        here = self._here.has(ids)
        strangers = [i for i, known in zip(ids, here, strict=True) if not known]
        elsewhere = set(self._found_elsewhere(strangers))
        found, kept = iter(here), []
        for entry in batch:
            row = _good(entry)
            if row is None or next(found):
                kept.append(entry)
            elif row[self._column] not in elsewhere:
                kept.append(entry._replace(reject=reason))
        return kept

    def _found_elsewhere(self, ids: list[str]) -> list[str]:
        if not ids:
            return []
        if self._elsewhere is None:
            self._elsewhere = IdSet()
            if isinstance(self._source, FileSource):
                for batch in batches(self._source.ids(self._table), BATCH):
                    self._elsewhere.add(batch)
        return [i for i, known in zip(ids, self._elsewhere.has(ids), strict=True) if known]


def _good(entry: Entry) -> dict[str, Any] | None:
    return None if entry.reject else entry.row


def _reject(entry: Entry) -> Reject:
    """A reject with how the record begins, where it could be read at all."""
    values = [str(value) for name, value in (entry.row or {}).items() if name != "lang" and value != ""]
    return Reject(entry.reject, entry.where, entry.text or " ".join(values)[:SHOWN])
