"""Ingest: from a source to DOCS, QUERIES and QRELS, or PAIRS, with each record that cannot become a row counted.

Entries stream: memory holds the rows of one part, and 8 bytes for each id that was read (see ``pipelines.ids``). The
source rejects malformed records (``pipelines.sources.records``); ingest adds three reasons: an id that was read before,
and a judgement of a query or of a document that the source does not have. A judgement of what the source does have, but
in another split or language, belongs to another table and is left out without a reject.
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
from pipelines.chunks import chunk
from pipelines.filters.fields import make_column
from pipelines.ids import IdSet
from pipelines.sources import AnySource
from pipelines.sources.base import Entry
from pipelines.sources.files import AbsentFileError, FileSource, TableName, identify
from pipelines.sources.metadata import list_kept
from pipelines.sources.records import BATCH, DUPLICATE, SHOWN, UNKNOWN_DOC, UNKNOWN_QUERY
from pipelines.sources.splits import find_split_rule
from pipelines.tables import DOCS, PAIRS, QRELS, QUERIES

ABSENT = "absent: "  # begins the ``content`` of files that are not here; the reason follows


class IngestConfig(Component):
    """What to ingest.

    ``content`` identifies what is in the source's files, whose paths are in no fingerprint: a collection that moves
    keeps its artifacts, one that changes gets new ones. ``splits`` is the rule that divides the questions where no file
    of the collection does ("by hash of group"), and "" where one does.
    """

    source: AnySource
    lang: str
    split: str
    rows_per_part: int = Field(ge=1)
    content: str
    splits: str = ""

    @field_validator("lang")
    @classmethod
    def _known(cls, code: str) -> str:
        return languages.check(code)

    @classmethod
    def of(cls, source: AnySource, lang: str, split: str, rows_per_part: int, table: TableName) -> "IngestConfig":
        """Make the config of one table. Documents that all splits share get the split "all", so they are ingested once.

        Where the files are not here, ``content`` begins with ``ABSENT``: such a plan can be shown but not run.

        Raises:
            RecipeError: the source has no such language or split.
        """
        config = {"source": source, "lang": lang, "rows_per_part": rows_per_part}
        try:
            found = identify(source, table, languages.check(lang), split)
            if table == "docs" and found["files"] and found == identify(source, table, lang, "all"):
                split = "all"
            return cls(**config, split=split, content=fingerprint(found), splits=find_split_rule(source, split))
        except (AbsentFileError, StorageError) as error:
            return cls(**config, split=split, content=f"{ABSENT}{error}")


class _Ingest:
    """A ``SourceWork`` for one table: reads entries in batches and rejects those whose key the table has already."""

    table: Table
    name: TableName

    def __init__(self, config: IngestConfig, inputs: Mapping[str, Artifact]) -> None:
        self.config, self.inputs = config, inputs

    def __call__(self) -> Iterator[tuple[pa.Table, list[Reject]]]:
        """Yield tables of ``rows_per_part`` rows, the last one shorter, each with the rejects read meanwhile.

        A table is empty where there were ``rows_per_part`` rejects and fewer rows.

        Raises:
            StepError: the source gives nothing at all for this language and split.
        """
        rows: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        size, empty, seen = self.config.rows_per_part, True, IdSet()
        for batch in chunk(self._entries(), min(BATCH, size)):
            empty = False
            for entry in self._mark_duplicates(batch, seen):
                if row := _good_row(entry):
                    rows.append(row)
                else:
                    rejects.append(_make_reject(entry))
                if len(rows) == size:
                    yield self._make(rows), rejects
                    rows, rejects = [], []
                elif len(rejects) == size:  # a broken file must not fill the memory
                    yield self._make([]), rejects
                    rejects = []
        if rows or rejects:
            yield self._make(rows), rejects
        if empty:
            raise StepError(self._explain_empty())

    def _make(self, rows: list[dict[str, Any]]) -> pa.Table:
        return self.table.of(rows)

    def _entries(self) -> Iterator[Entry]:
        read = getattr(self.config.source, self.name)
        return iter(read(self.config.lang, self.config.split))

    def _mark_duplicates(self, batch: list[Entry], seen: IdSet) -> Iterator[Entry]:
        """Yield the batch, with the reject "duplicate id" on each row whose key was read before."""
        keys = [self._key(row) for row in map(_good_row, batch) if row]
        new = iter(seen.add(keys))
        for entry in batch:
            yield entry if not _good_row(entry) or next(new) else entry._replace(reject=DUPLICATE)

    def _key(self, row: dict[str, Any]) -> str:
        first, *others = [row[name] for name in self.table.key]
        return f"{len(first)} {first} {' '.join(others)}" if others else first

    def _explain_empty(self) -> str:
        config = self.config
        advice = "Choose a language and a split that it has"
        if config.splits:
            advice += f"; splits are made {config.splits} and may be empty where there are few: split=all has every row"
        return (
            f"source {config.source.kind} gives no {self.name} in {config.lang} for split {config.split!r}: expected "
            f"at least one. {advice}"
        )


class IngestDocs(_Ingest):
    """A ``SourceWork`` that writes DOCS, with the fields that the source keeps."""

    table, name = DOCS, "docs"

    def _make(self, rows: list[dict[str, Any]]) -> pa.Table:
        return self.table.of(rows, make_column(list_kept(self.config.source)))


class IngestQueries(_Ingest):
    """A ``SourceWork`` that writes QUERIES. A query needs no judgement to be kept."""

    table, name = QUERIES, "queries"


class IngestQrels(_Ingest):
    """A ``SourceWork`` that writes QRELS for the rows of ``inputs["queries"]`` and ``inputs["docs"]``.

    Ids that are in neither are looked up among all ids of the source; its files are read once more for that, if needed.
    """

    table, name = QRELS, "qrels"

    def _entries(self) -> Iterator[Entry]:
        queries = _KnownIds("query_id", self.inputs["queries"], self.config.source, "queries")
        docs = _KnownIds("doc_id", self.inputs["docs"], self.config.source, "docs")
        for batch in chunk(super()._entries(), BATCH):
            yield from docs.keep(queries.keep(batch, UNKNOWN_QUERY), UNKNOWN_DOC)


class IngestPairs(_Ingest):
    """A ``SourceWork`` that writes PAIRS. A file that is not right is an error: pairs are matched by their line."""

    table, name = PAIRS, "pairs"


class _KnownIds:
    """The ids of an artifact, and of the source's other splits and languages, which are read when first needed."""

    def __init__(self, column: str, artifact: Artifact, source: Any, table: TableName) -> None:
        self._column, self._source, self._table = column, source, table
        self._here = IdSet()
        self._elsewhere: IdSet | None = None
        for rows in artifact.tables([column]):
            self._here.add(rows[column].to_pylist())

    def keep(self, batch: list[Entry], reason: str) -> list[Entry]:
        """Drop entries whose id belongs to another split or language; reject those whose id is nowhere."""
        ids = [row[self._column] for row in map(_good_row, batch) if row]
        here = self._here.has(ids)
        unknown = [i for i, known in zip(ids, here, strict=True) if not known]
        elsewhere = set(self._find_elsewhere(unknown))
        found, kept = iter(here), []
        for entry in batch:
            row = _good_row(entry)
            if row is None or next(found):
                kept.append(entry)
            elif row[self._column] not in elsewhere:
                kept.append(entry._replace(reject=reason))
        return kept

    def _find_elsewhere(self, ids: list[str]) -> list[str]:
        if not ids:
            return []
        if self._elsewhere is None:
            self._elsewhere = IdSet()
            if isinstance(self._source, FileSource):
                for batch in chunk(self._source.ids(self._table), BATCH):
                    self._elsewhere.add(batch)
        return [i for i, known in zip(ids, self._elsewhere.has(ids), strict=True) if known]


def _good_row(entry: Entry) -> dict[str, Any] | None:
    return None if entry.reject else entry.row


def _make_reject(entry: Entry) -> Reject:
    """Make a reject that shows how the record begins."""
    values = [str(value) for name, value in (entry.row or {}).items() if name != "lang" and value != ""]
    return Reject(entry.reject, entry.where, entry.text or " ".join(values)[:SHOWN])
