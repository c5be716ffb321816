"""Score files: a teacher's scores that somebody has published, as RANKINGS. No selection and no teacher is needed.

    [query_id, [doc_id, score], [doc_id, score], …]     one JSON list per line and query; plain, .gz, .bz2 or .zst

This is the format of ColBERT's scored examples and of the papers' published scores (``tdist-msmarco-scores``). Ids are
strings or whole numbers; the order of the documents does not matter. ``pipelines.export.write_colbert_examples``
writes it.

What cannot be used is a reject with its reason: a line by ``malformed line``, ``unknown query id`` or ``duplicate id``;
a pair by ``unknown doc id``, ``duplicate id`` or ``invalid score`` (no finite float32), while the row keeps the others.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from cluster.artifact import Artifact
from cluster.component import Component, Location, fingerprint
from cluster.errors import StepError, StorageError
from cluster.storage import Place
from cluster.table import Reject
from pipelines.chunks import chunk
from pipelines.ids import IdSet
from pipelines.ingest import ABSENT
from pipelines.sources.files import File
from pipelines.sources.records import DUPLICATE, MALFORMED, NOT_UTF8, SHOWN, UNKNOWN_DOC, UNKNOWN_QUERY, read_id
from pipelines.tables import RANKINGS

NOT_A_SCORE = "invalid score"
LARGEST = float(np.finfo(np.float32).max)


class ScoreFile(Component):
    """``score = { kind = "file", path = … }``: where a score file stands, a path or an ``s3://`` URI."""

    kind: Literal["file"] = "file"
    path: Location


class ScoreFileConfig(Component):
    """Which file to read. ``content`` identifies what is in it: its path is in no fingerprint."""

    file: ScoreFile
    rows_per_part: int = Field(ge=1)
    content: str

    @classmethod
    def of(cls, file: ScoreFile, rows_per_part: int) -> "ScoreFileConfig":
        """Make the config. Where the file is not here, ``content`` begins with ``pipelines.ingest.ABSENT``: such a plan
        can be shown but not run."""
        place = Place(file.path)
        try:
            if not place.exists():
                raise StorageError(f"score.path = {place.redacted!r}: no such file; set it to where the score file is")
            _, *content = File(place.name, place).digest()  # a renamed file is the same
            return cls(file=file, rows_per_part=rows_per_part, content=fingerprint(content))
        except StorageError as error:
            return cls(file=file, rows_per_part=rows_per_part, content=f"{ABSENT}{error}")


class _Line(NamedTuple):
    """A line of the file: a query, its documents, and the scores as JSON has them."""

    where: str
    query_id: str
    doc_ids: list[str]
    scores: list[Any]


class ReadScores:
    """SourceWork: the lines of a score file -> RANKINGS of the queries and documents of a recipe.

    ``inputs["queries"]`` is a QUERIES artifact and ``inputs["docs"]`` a DOCS artifact: their ids are those that are
    known. Memory holds the lines of one part and 8 bytes per id.
    """

    def __init__(self, config: ScoreFileConfig, inputs: Mapping[str, Artifact]) -> None:
        self._config = config
        self._queries, self._docs = IdSet(), IdSet()
        for known, role, column in ((self._queries, "queries", "query_id"), (self._docs, "docs", "doc_id")):
            for rows in inputs[role].tables([column]):
                known.add(rows[column].to_pylist())

    def __call__(self) -> Iterator[tuple[pa.Table, list[Reject]]]:
        """Yield the rows of ``rows_per_part`` lines at a time, with their rejects.

        Raises:
            StepError: the file holds no line.
        """
        place = Place(self._config.file.path)
        empty, seen = True, IdSet()
        for lines in chunk(File(place.name, place).lines(), self._config.rows_per_part):
            empty = False
            rejects: list[Reject] = []
            read = [line for where, text in lines if (line := _read_line(where, text, rejects))]
            kept = self._keep_known_queries(read, seen, rejects)
            rows = [row for line in self._keep_known_docs(kept, rejects) if (row := _make_row(line, rejects))]
            yield RANKINGS.of(rows), rejects
        if empty:
            raise StepError(f"score.path = {place.redacted!r} is empty: expected a line for each query")

    def _keep_known_queries(self, lines: list[_Line], seen: IdSet, rejects: list[Reject]) -> list[_Line]:
        """The first line of each query of the recipe; ``seen`` are the queries of the lines before."""
        ids = [line.query_id for line in lines]
        known, new = self._queries.has(ids), seen.add(ids)
        for line, is_known, is_new in zip(lines, known, new, strict=True):
            if not (is_known and is_new):
                rejects.append(Reject(DUPLICATE if is_known else UNKNOWN_QUERY, line.where, line.query_id))
        return [line for line, keep in zip(lines, known & new, strict=True) if keep]

    def _keep_known_docs(self, lines: list[_Line], rejects: list[Reject]) -> Iterator[_Line]:
        """The lines without the documents that the recipe does not have."""
        known = iter(self._docs.has([doc_id for line in lines for doc_id in line.doc_ids]).tolist())
        for line in lines:
            there = [next(known) for _ in line.doc_ids]
            gone = [doc_id for doc_id, is_there in zip(line.doc_ids, there, strict=True) if not is_there]
            rejects.extend(Reject(UNKNOWN_DOC, line.where, f"{line.query_id} {doc_id}") for doc_id in gone)
            pairs = [
                pair for pair, keep in zip(zip(line.doc_ids, line.scores, strict=True), there, strict=True) if keep
            ]
            yield line._replace(doc_ids=[doc_id for doc_id, _ in pairs], scores=[score for _, score in pairs])


def _read_line(where: str, text: str | None, rejects: list[Reject]) -> _Line | None:
    """Parse a line; one that cannot be used is added to ``rejects``."""
    try:
        line = _parse_line(where, text or "")
    except (ValueError, TypeError, RecursionError):  # no JSON, no list, no pairs, brackets a thousand deep
        line = None
    if line is None:
        rejects.append(Reject(NOT_UTF8 if text is None else MALFORMED, where, (text or "")[:SHOWN]))
    return line


def _parse_line(where: str, text: str) -> _Line | None:
    """The line, or None where it has no documents or an id that is none. Raises what JSON and unpacking raise."""
    query, *pairs = json.loads(text)
    query_id = read_id(query)
    doc_ids = [found for doc, _ in pairs if (found := read_id(doc))]
    if not query_id or not pairs or len(doc_ids) < len(pairs) or not all(isinstance(pair, list) for pair in pairs):
        return None
    return _Line(where, query_id, doc_ids, [score for _, score in pairs])


def _make_row(line: _Line, rejects: list[Reject]) -> dict[str, Any] | None:
    """A row of RANKINGS: scores falling, ties by doc id; None where no document is left."""
    scores: dict[str, float] = {}
    for doc_id, value in zip(line.doc_ids, line.scores, strict=True):
        score = _read_score(value)
        if score is None or doc_id in scores:
            reason = NOT_A_SCORE if score is None else DUPLICATE
            rejects.append(Reject(reason, line.where, f"{line.query_id} {doc_id} {value}"[:SHOWN]))
        else:
            scores[doc_id] = score
    ranked = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
    if not ranked:
        return None
    return {"query_id": line.query_id, "doc_ids": [d for d, _ in ranked], "scores": [s for _, s in ranked]}


def _read_score(value: Any) -> float | None:
    """A score as float32 holds it; None where it is no finite number there."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        return None
    return float(np.float32(value))
