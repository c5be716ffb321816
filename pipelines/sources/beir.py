"""BEIR directories: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``, with an optional field ``lang``.

    {"_id": "d1", "title": "…", "text": "…", "lang": "de"}
    query-id  corpus-id  score                             (the header of the qrels)

Which questions belong to a split is written in its qrels alone; they are read first and kept in 8 bytes each.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any, Literal

from cluster.component import Component, Location
from cluster.errors import RecipeError
from cluster.storage import Place
from pipelines import languages
from pipelines.ids import IdSet, batches
from pipelines.sources.base import Entry
from pipelines.sources.files import File, TableName, find, names
from pipelines.sources.records import doc, json_lines, known_id, query, trec_qrels

BATCH = 8192


class Beir(Component):
    """A BEIR directory. A record without ``lang`` is in this component's ``lang``."""

    kind: Literal["beir"] = "beir"
    path: Location
    lang: str = "en"

    def docs(self, lang: str, split: str) -> Iterator[Entry]:
        """The documents in ``lang``: every split shares the corpus."""
        (file,) = self.files("docs", lang, split)
        for where, record in json_lines(file):
            if isinstance(record, Entry):
                yield record
            elif self._speaks(record, lang):
                yield doc(where, record.get("_id"), record.get("text"), lang, record.get("title"))

    def queries(self, lang: str, split: str) -> Iterator[Entry]:
        """The questions in ``lang`` that have a judgement in the split; with "all", every question in ``lang``."""
        file, *judged = self.files("queries", lang, split)
        entries = self._queries(file, lang)
        return _those_judged(entries, judged) if judged else entries

    def qrels(self, lang: str, split: str) -> Iterator[Entry]:
        """The split's judgements, for documents in any language: the file does not say which."""
        return chain.from_iterable(map(trec_qrels, self.files("qrels", lang, split)))

    def files(self, table: TableName, lang: str, split: str) -> list[File]:
        """See ``FileSource``."""
        root = Place.of(self.path)
        known = [name.removesuffix(".tsv") for name in names(root, "qrels") if name.endswith(".tsv")]
        if split != "all" and split not in known:
            raise RecipeError(f"{root.shown} has no split {split!r}; it has {', '.join([*known, 'all'])}")
        if table == "docs":
            return [find(root, "corpus.jsonl")]
        judged = [find(root, f"qrels/{name}.tsv") for name in (known if split == "all" else [split])]
        if table == "qrels":
            return judged
        return [find(root, "queries.jsonl"), *(judged if split != "all" else [])]

    def ids(self, table: TableName) -> Iterator[str]:
        """See ``FileSource``."""
        file = find(Place.of(self.path), "corpus.jsonl" if table == "docs" else "queries.jsonl")
        for _, record in json_lines(file):
            if isinstance(record, dict) and (key := known_id(record.get("_id"))):
                yield key

    def _queries(self, file: File, lang: str) -> Iterator[Entry]:
        for where, record in json_lines(file):
            if isinstance(record, Entry):
                yield record
            elif self._speaks(record, lang):
                yield query(where, record.get("_id"), record.get("text"), lang)

    def _speaks(self, record: dict[str, Any], lang: str) -> bool:
        return languages.normalise(str(record.get("lang") or self.lang)) == lang


def _those_judged(entries: Iterator[Entry], judged: list[File]) -> Iterator[Entry]:
    known = IdSet()
    for batch in batches((e.row["query_id"] for file in judged for e in trec_qrels(file) if e.row), BATCH):
        known.add(batch)
    for some in batches(entries, BATCH):
        kept = known.has([e.row["query_id"] if e.row else "" for e in some])
        yield from (entry for entry, keep in zip(some, kept, strict=True) if keep or not entry.row)
