"""JSON lines with fields of any name: the simplest way to bring a collection of one's own.

    docs      {"doc_id": "d1", "title": "…", "text": "…", "lang": "de"}     title and lang may be absent
    queries   {"query_id": "q1", "text": "…", "lang": "en"}
    qrels     {"query_id": "q1", "doc_id": "d1", "relevance": 1}, or a TREC file where the name does not end in .jsonl

A path may hold ``{lang}`` and ``{split}``, which are replaced by what is asked for: ``queries.{split}.jsonl``. Where no
path holds ``{split}``, questions are divided by hash of their id (see ``pipelines.sources.splits``).

Topics of NeuCLIR, HC3 and HC4 are read where ``topics`` names the fields that make the question:

    {"topic_id": "1", "topics": [{"lang": "eng", "source": "original", "topic_title": "…", "topic_description": "…"}]}
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any, Literal

from cluster.component import Component, Location
from cluster.errors import RecipeError
from cluster.storage import Place
from pipelines import languages
from pipelines.filters.fields import KeptFields
from pipelines.sources.base import Entry, TopicField
from pipelines.sources.files import AbsentFileError, File, TableName, strip_compression
from pipelines.sources.metadata import add_fields
from pipelines.sources.records import make_doc, make_judgement, make_query, read_id, read_json_lines, read_qrels
from pipelines.sources.splits import SPLITS, HashedBy, keep_split

PEOPLE = ("original", "human translation")  # writers of a topic, best first; any other ``source`` names a machine


class Fields(Component):
    """The names of the fields. An id that is not there under its name is looked for as ``id``."""

    doc_id: str = "doc_id"
    query_id: str = "query_id"
    title: str = "title"
    text: str = "text"
    lang: str = "lang"
    relevance: str = "relevance"


class Jsonl(Component):
    """Up to three files. ``splits`` are those that ``{split}`` in a path stands for; "all" is all of them.

    A record without a language is in this component's ``lang``, or in the one asked for if its path holds ``{lang}``.
    ``topics`` is for TREC topics alone: their title and description make the questions of the papers. Of several texts
    of a topic in one language, the original or a translation by people is read, never one by a machine. ``metadata``
    names the fields of documents that are kept beside their text, with their types.
    """

    kind: Literal["jsonl"] = "jsonl"
    docs_path: Location
    queries_path: Location | None = None
    qrels_path: Location | None = None
    lang: str = "en"
    splits: tuple[str, ...] = ()
    fields: Fields = Fields()
    topics: tuple[TopicField, ...] = ()
    metadata: KeptFields = {}

    def docs(self, lang: str, split: str) -> Iterator[Entry]:
        """The documents in ``lang``."""
        for where, record in self._records("docs", lang, split):
            if isinstance(record, Entry):
                yield record
            else:
                text, title = record.get(self.fields.text), record.get(self.fields.title)
                entry = make_doc(where, _id(record, self.fields.doc_id), text, lang, title)
                yield add_fields(entry, record, self.metadata)

    def queries(self, lang: str, split: str) -> Iterator[Entry]:
        """The questions of the split in ``lang``."""
        entries = self._topics(lang, split) if self.topics else self._queries(lang, split)
        return keep_split(entries, split) if self.hashed_by() else entries

    def qrels(self, lang: str, split: str) -> Iterator[Entry]:
        """The judgements of the split."""
        entries = chain.from_iterable(map(self._judgements, self.files("qrels", lang, split)))
        return keep_split(entries, split) if self.hashed_by() else entries

    def files(self, table: TableName, lang: str, split: str) -> list[File]:
        """See ``FileSource``."""
        known = self.splits or SPLITS
        if split not in (*known, "all"):
            raise RecipeError(
                f"this source has no split {split!r}; it has {', '.join([*known, 'all'])}. Put {{split}} into "
                "its paths and name the splits in source.splits"
            )
        return [self._file(path) for path in self._paths(table, lang, split)]

    def ids(self, table: TableName) -> Iterator[str]:
        """See ``FileSource``. Where a path holds ``{lang}``, the ids of this component's language."""
        name = self.fields.doc_id if table == "docs" else self._query_id
        for file in self.files(table, self.lang, "all"):
            for _, record in read_json_lines(file):
                if isinstance(record, dict) and (key := read_id(_id(record, name))):
                    yield key

    def hashed_by(self) -> HashedBy:
        """See ``HashSplitSource``."""
        return "" if self.splits or not self.queries_path else "query id"

    @property
    def _query_id(self) -> str:
        return "topic_id" if self.topics else self.fields.query_id

    def _paths(self, table: TableName, lang: str, split: str) -> list[str]:
        path = {"docs": self.docs_path, "queries": self.queries_path, "qrels": self.qrels_path}[table]
        if path is None:
            raise RecipeError(f"this source has no {table}: set source.{table}_path to a file that holds them")
        path = Location(path.replace("{lang}", lang))
        wanted = self.splits if split == "all" and "{split}" in path else (split,)
        return [path.replace("{split}", part) for part in wanted]

    def _file(self, path: str) -> File:
        place = Place.of(path)
        if not place.exists():
            raise AbsentFileError(f"expected a file at {place.redacted}, found none: set the source's paths")
        return File(place.name, place)

    def _records(self, table: TableName, lang: str, split: str) -> Iterator[tuple[str, dict[str, Any] | Entry]]:
        """Where each record in ``lang`` stands, with the record or its reject."""
        path = self.docs_path if table == "docs" else self.queries_path
        usual = lang if "{lang}" in (path or "") else self.lang
        for file in self.files(table, lang, split):
            for where, record in read_json_lines(file):
                if isinstance(record, Entry) or self._is_in(record, usual, lang):
                    yield where, record

    def _is_in(self, record: dict[str, Any], usual: str, lang: str) -> bool:
        return languages.normalise(str(record.get(self.fields.lang) or usual)) == lang

    def _queries(self, lang: str, split: str) -> Iterator[Entry]:
        for where, record in self._records("queries", lang, split):
            if isinstance(record, Entry):
                yield record
            else:
                yield make_query(where, _id(record, self._query_id), record.get(self.fields.text), lang)

    def _topics(self, lang: str, split: str) -> Iterator[Entry]:
        """The topics that people wrote in ``lang``; the others have no question in it."""
        for where, record in chain.from_iterable(map(read_json_lines, self.files("queries", lang, split))):
            if isinstance(record, Entry):
                yield record
            elif topic := _find_topic(record, lang):
                text = " ".join(str(topic[name]).strip() for part in self.topics if topic.get(name := f"topic_{part}"))
                yield make_query(where, _id(record, self._query_id), text, lang)

    def _judgements(self, file: File) -> Iterator[Entry]:
        if not strip_compression(file.name).endswith(".jsonl"):
            yield from read_qrels(file)
            return
        names = self.fields
        for where, record in read_json_lines(file):
            if isinstance(record, Entry):
                yield record
            else:
                yield make_judgement(
                    where, record.get(names.query_id), record.get(names.doc_id), record.get(names.relevance)
                )


def _id(record: dict[str, Any], name: str) -> Any:
    return record.get(name, record.get("id"))


def _find_topic(record: dict[str, Any], lang: str) -> dict[str, Any] | None:
    """The text of a topic in ``lang`` that people wrote, the original before a translation."""
    texts = record.get("topics")
    found = [t for t in texts if isinstance(t, dict)] if isinstance(texts, list) else []
    written = [t for t in found if t.get("source") in PEOPLE and languages.normalise(str(t.get("lang"))) == lang]
    return min(written, key=lambda topic: PEOPLE.index(topic["source"]), default=None)
