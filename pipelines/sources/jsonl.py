"""JSON lines with fields of any name: the simplest way to bring a collection of one's own.

    docs      {"doc_id": "d1", "title": "…", "text": "…", "lang": "de"}     title and lang may be absent
    queries   {"query_id": "q1", "text": "…", "lang": "en"}
    qrels     {"query_id": "q1", "doc_id": "d1", "relevance": 1}, or a TREC file where the name does not end in .jsonl

A path may hold ``{lang}`` and ``{split}``, which are replaced by what is asked for: ``queries.{split}.jsonl``.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any, Literal

from cluster.component import Component, Location
from cluster.errors import RecipeError
from cluster.storage import Place
from pipelines import languages
from pipelines.sources.base import Entry
from pipelines.sources.files import AbsentFileError, File, TableName, plain
from pipelines.sources.records import doc, json_lines, judgement, known_id, query, trec_qrels


class Fields(Component):
    """The names of the fields. An id that is not there under its name is looked for as ``id``."""

    doc_id: str = "doc_id"
    query_id: str = "query_id"
    title: str = "title"
    text: str = "text"
    lang: str = "lang"
    relevance: str = "relevance"


class Jsonl(Component):
    """Three files. ``splits`` are those that ``{split}`` in a path stands for; "all" is all of them.

    A record without a language is in this component's ``lang``, or in the one asked for if its path holds ``{lang}``.
    """

    kind: Literal["jsonl"] = "jsonl"
    docs_path: Location
    queries_path: Location
    qrels_path: Location
    lang: str = "en"
    splits: tuple[str, ...] = ()
    fields: Fields = Fields()

    def docs(self, lang: str, split: str) -> Iterator[Entry]:
        """The documents in ``lang``."""
        for where, record in self._records("docs", lang, split):
            if isinstance(record, Entry):
                yield record
            else:
                text, title = record.get(self.fields.text), record.get(self.fields.title)
                yield doc(where, _id(record, self.fields.doc_id), text, lang, title)

    def queries(self, lang: str, split: str) -> Iterator[Entry]:
        """The questions in ``lang``; of the split, where ``queries_path`` holds ``{split}``."""
        for where, record in self._records("queries", lang, split):
            if isinstance(record, Entry):
                yield record
            else:
                yield query(where, _id(record, self.fields.query_id), record.get(self.fields.text), lang)

    def qrels(self, lang: str, split: str) -> Iterator[Entry]:
        """The judgements; of the split, where ``qrels_path`` holds ``{split}``."""
        return chain.from_iterable(map(self._judgements, self.files("qrels", lang, split)))

    def files(self, table: TableName, lang: str, split: str) -> list[File]:
        """See ``FileSource``."""
        if split != "all" and split not in self.splits:
            raise RecipeError(
                f"this source has no split {split!r}; it has {', '.join([*self.splits, 'all'])}. Put {{split}} into "
                "its paths and name the splits in source.splits"
            )
        return [self._file(path) for path in self._paths(table, lang, split)]

    def ids(self, table: TableName) -> Iterator[str]:
        """See ``FileSource``. Where a path holds ``{lang}``, the ids of this component's language."""
        name = self.fields.doc_id if table == "docs" else self.fields.query_id
        for file in self.files(table, self.lang, "all"):
            for _, record in json_lines(file):
                if isinstance(record, dict) and (key := known_id(_id(record, name))):
                    yield key

    def _paths(self, table: TableName, lang: str, split: str) -> list[str]:
        path = {"docs": self.docs_path, "queries": self.queries_path, "qrels": self.qrels_path}[table]
        path = Location(path.replace("{lang}", lang))
        wanted = self.splits if split == "all" and "{split}" in path else (split,)
        return [path.replace("{split}", part) for part in wanted]

    def _file(self, path: str) -> File:
        place = Place.of(path)
        if not place.exists():
            raise AbsentFileError(f"expected a file at {place.shown}, found none: set the source's paths")
        return File(place.name, place)

    def _records(self, table: TableName, lang: str, split: str) -> Iterator[tuple[str, dict[str, Any] | Entry]]:
        """Where, and the record or its reject, of those records that are in ``lang``."""
        path = self.docs_path if table == "docs" else self.queries_path
        usual = lang if "{lang}" in path else self.lang
        for file in self.files(table, lang, split):
            for where, record in json_lines(file):
                if isinstance(record, Entry) or self._in(record, usual, lang):
                    yield where, record

    def _in(self, record: dict[str, Any], usual: str, lang: str) -> bool:
        return languages.normalise(str(record.get(self.fields.lang) or usual)) == lang

    def _judgements(self, file: File) -> Iterator[Entry]:
        if not plain(file.name).endswith(".jsonl"):
            yield from trec_qrels(file)
            return
        names = self.fields
        for where, record in json_lines(file):
            if isinstance(record, Entry):
                yield record
            else:
                yield judgement(
                    where, record.get(names.query_id), record.get(names.doc_id), record.get(names.relevance)
                )


def _id(record: dict[str, Any], name: str) -> Any:
    return record.get(name, record.get("id"))
