"""BEIR directories: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``, with an optional field ``lang``.

    {"_id": "d1", "title": "…", "text": "…", "lang": "de", "metadata": {"year": 2024}}
    query-id  corpus-id  score                             (the header of the qrels)

Which questions belong to a split is written in its qrels alone; they are read first and kept in 8 bytes each. Where
there are no qrels, questions are divided by hash (see ``pipelines.sources.splits``).
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any, Literal

from cluster.component import Component, Location
from cluster.errors import RecipeError
from cluster.storage import Place
from pipelines import languages
from pipelines.filters.fields import KeptFields
from pipelines.sources.base import Entry
from pipelines.sources.files import File, TableName, find, list_names
from pipelines.sources.metadata import add_fields
from pipelines.sources.records import keep_judged, make_doc, make_query, read_id, read_json_lines, read_qrels
from pipelines.sources.splits import SPLITS, HashedBy, keep_split


class Beir(Component):
    """A BEIR directory. A record without ``lang`` is in this component's ``lang``; ``metadata`` names the fields of
    documents that are kept, with their types."""

    kind: Literal["beir"] = "beir"
    path: Location
    lang: str = "en"
    metadata: KeptFields = {}

    def docs(self, lang: str, split: str) -> Iterator[Entry]:
        """The documents in ``lang``: every split shares the corpus."""
        (file,) = self.files("docs", lang, split)
        for where, record in read_json_lines(file):
            if isinstance(record, Entry):
                yield record
            elif self._is_in(record, lang):
                entry = make_doc(where, record.get("_id"), record.get("text"), lang, record.get("title"))
                yield add_fields(entry, record, self.metadata)

    def queries(self, lang: str, split: str) -> Iterator[Entry]:
        """The questions in ``lang`` that have a judgement in the split; with "all", every question in ``lang``."""
        file, *judged = self.files("queries", lang, split)
        entries = self._queries(file, lang)
        if judged:
            return keep_judged(entries, chain.from_iterable(map(read_qrels, judged)))
        return keep_split(entries, split)

    def qrels(self, lang: str, split: str) -> Iterator[Entry]:
        """The split's judgements, for documents in any language: the file does not say which."""
        return chain.from_iterable(map(read_qrels, self.files("qrels", lang, split)))

    def files(self, table: TableName, lang: str, split: str) -> list[File]:
        """See ``FileSource``."""
        root = Place.of(self.path)
        judged = self._judged_splits()
        known = judged or list(SPLITS)
        if split not in (*known, "all"):
            raise RecipeError(f"{root.redacted} has no split {split!r}; it has {', '.join([*known, 'all'])}")
        if table == "docs":
            return [find(root, "corpus.jsonl")]
        if table == "qrels":
            return [find(root, f"qrels/{name}.tsv") for name in (known if split == "all" else [split])]
        own = split != "all" and judged
        return [find(root, "queries.jsonl"), *([find(root, f"qrels/{split}.tsv")] if own else [])]

    def ids(self, table: TableName) -> Iterator[str]:
        """See ``FileSource``."""
        file = find(Place.of(self.path), "corpus.jsonl" if table == "docs" else "queries.jsonl")
        for _, record in read_json_lines(file):
            if isinstance(record, dict) and (key := read_id(record.get("_id"))):
                yield key

    def hashed_by(self) -> HashedBy:
        """See ``HashSplitSource``."""
        return "" if self._judged_splits() else "query id"

    def _judged_splits(self) -> list[str]:
        files = list_names(Place.of(self.path), "qrels")
        return [name.removesuffix(".tsv") for name in files if name.endswith(".tsv")]

    def _queries(self, file: File, lang: str) -> Iterator[Entry]:
        for where, record in read_json_lines(file):
            if isinstance(record, Entry):
                yield record
            elif self._is_in(record, lang):
                yield make_query(where, record.get("_id"), record.get("text"), lang)

    def _is_in(self, record: dict[str, Any], lang: str) -> bool:
        return languages.normalise(str(record.get("lang") or self.lang)) == lang
