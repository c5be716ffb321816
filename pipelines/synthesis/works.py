"""The steps *synth*, *keep* and *cap*: DOCS -> QUERIES with the same ids -> those that are worth training on.

A query has the id of the passage that it was written from, and that passage is its positive.

    Synthesise   writes a query for each passage
    Keep         rejects what is empty, in another language, a duplicate, or not found by a retriever
    Cap          rejects what is beyond the largest number of queries

Duplicates and the cap are properties of the whole table, of which a worker does one part at a time. Each worker reads
the table once when it is built, and holds 8 bytes for each row of it (see ``pipelines.ids``), so a part comes out the
same whoever does it and in whatever order. On one core that costs 8 s per million rows for duplicates and 2 s for the
cap; queries are judged at 2,800 rows/s, most of it lingua.
"""

import sys
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from cluster.artifact import Artifact
from cluster.component import Component
from pipelines import languages
from pipelines.ids import IdSet, hash_ids
from pipelines.synthesis import Synthesis
from pipelines.synthesis.base import EMPTY, Passage, Wording, Writer, Written
from pipelines.synthesis.language import check_detectable, find_foreign, open_detector
from pipelines.tables import QUERIES

DUPLICATE, LANGUAGE, BEYOND = "duplicate", "language", "beyond the cap"


class SynthesiseConfig(Component):
    """What writes queries, in which language, with which words."""

    lang: str
    synthesis: Synthesis
    wording: Wording

    @classmethod
    def of(cls, synthesis: Synthesis, lang: str) -> "SynthesiseConfig":
        """With the phrases that the package has now. Raises RecipeError where it has none for this language."""
        return cls(lang=languages.check(lang), synthesis=synthesis, wording=synthesis.wording(lang))


class Synthesise:
    """RowWork: DOCS -> QUERIES of the same ids. ``inputs["all"]``: the same DOCS, where ``passages`` chooses some."""

    def __init__(self, config: SynthesiseConfig, inputs: Mapping[str, Artifact]) -> None:
        self._lang = config.lang
        self._writer: Writer = config.synthesis.build(config.lang, config.wording)
        self._chosen = Lowest(inputs["all"], "doc_id", config.synthesis.passages) if config.synthesis.passages else None

    def __call__(self, docs: pa.Table) -> pa.Table:
        """Write the queries of a part."""
        rows = docs.to_pylist()
        if self._chosen:
            rows = [row | {"reject": row["reject"] or self._chosen.find_reject(row["doc_id"])} for row in rows]
        passages = [Passage(r["doc_id"], r["title"] or "", r["text"]) for r in rows if r["reject"] is None]
        written = iter(self._writer.write(passages))
        return QUERIES.of(
            [self._row(r, next(written) if r["reject"] is None else Written(reject=r["reject"])) for r in rows]
        )

    def _row(self, doc: dict[str, Any], written: Written) -> dict[str, Any]:
        text, reject = (written.text, None) if written.reject is None else (None, written.reject)
        return {"query_id": doc["doc_id"], "lang": self._lang, "text": text, "reject": reject}


class KeepConfig(Component):
    """The language of the queries, and among how many passages a query's own must be found."""

    lang: str
    keep: int = Field(20, ge=1)

    @field_validator("lang")
    @classmethod
    def _is_detectable(cls, lang: str) -> str:
        return check_detectable(languages.check(lang))


class Keep:
    """RowWork: QUERIES, and RANKINGS of a search for them among the passages -> the same QUERIES, with more rejects.

    ``inputs["all"]`` are the same QUERIES: of those whose normalised texts are the same the first stays, in the order
    of parts and rows, whatever else becomes of it. The text of what is rejected here is kept, to be looked at.
    """

    def __init__(self, config: KeepConfig, inputs: Mapping[str, Artifact]) -> None:
        self._keep = config.keep
        self._detector = open_detector(config.lang)
        self._repeated = find_repeated(inputs["all"])

    def __call__(self, queries: pa.Table, found: pa.Table) -> pa.Table:
        """Judge a part."""
        rows, rankings = queries.to_pylist(), self._first(found).to_pylist()
        repeated = self._repeated.has([row["query_id"] for row in rows])
        foreign = find_foreign(self._detector, [row["text"] or "" for row in rows])
        for row, ranking, is_repeated, is_foreign in zip(rows, rankings, repeated, foreign, strict=True):
            if row["reject"] is None:
                row["reject"] = (
                    (EMPTY if not normalise(row["text"]) else None)
                    or (DUPLICATE if is_repeated else None)
                    or (LANGUAGE if is_foreign else None)
                    or self._find_miss(ranking)
                )
        return QUERIES.of(rows)

    def _first(self, found: pa.Table) -> pa.Table:
        """The first documents of each ranking alone."""
        first = pc.list_slice(found["doc_ids"], 0, self._keep)
        return pa.table({"query_id": found["query_id"], "doc_ids": first, "reject": found["reject"]})

    def _find_miss(self, ranking: dict[str, Any]) -> str | None:
        if ranking["reject"] is not None:
            return str(ranking["reject"])
        is_found = ranking["query_id"] in ranking["doc_ids"]
        return None if is_found else f"not found among the first {self._keep}"


class CapConfig(Component):
    """How many queries stay."""

    most: int = Field(ge=1)


class Cap:
    """RowWork: QUERIES -> the same, the good ones beyond ``most`` rejected. ``inputs["all"]`` are the same QUERIES."""

    def __init__(self, config: CapConfig, inputs: Mapping[str, Artifact]) -> None:
        self._lowest = Lowest(inputs["all"], "query_id", config.most)

    def __call__(self, queries: pa.Table) -> pa.Table:
        """Cap a part."""
        rows = queries.to_pylist()
        return QUERIES.of([r | {"reject": r["reject"] or self._lowest.find_reject(r["query_id"])} for r in rows])


class Lowest:
    """The ``most`` good rows of a table whose ids have the lowest hashes: a sample that does not change when others
    come or go, as far as they are not in it."""

    def __init__(self, table: Artifact, column: str, most: int) -> None:
        hashed = [hash_ids(rows[column].to_pylist()) for rows in table.tables([column])]
        all_hashes = np.concatenate(hashed) if hashed else np.empty(0, np.uint64)
        self._last = np.partition(all_hashes, most - 1)[most - 1] if len(all_hashes) > most else None

    def find_reject(self, row_id: str) -> str | None:
        """The reason why a row is not among them; None where it is."""
        return BEYOND if self._last is not None and hash_ids([row_id])[0] > self._last else None


def find_repeated(queries: Artifact) -> IdSet:
    """The ids of the queries whose normalised text an earlier one has."""
    texts, repeated = IdSet(), IdSet()
    for rows in queries.tables(["query_id", "text"]):
        is_new = texts.add([normalise(text) for text in rows["text"].to_pylist()])
        repeated.add([row_id for row_id, new in zip(rows["query_id"].to_pylist(), is_new, strict=True) if not new])
    return repeated


def normalise(text: str) -> str:
    """A text without case, punctuation and the width of its blanks: two such texts are one question."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_blanks()).split())


@lru_cache(maxsize=1)
def _blanks() -> dict[int, str]:
    """Punctuation, separators and control characters as blanks; 0.2 s, once."""
    kinds = ("Cc", "Cf")
    codes = range(sys.maxunicode + 1)
    return {c: " " for c in codes if (kind := unicodedata.category(chr(c)))[0] in "PZ" or kind in kinds}
