"""Parallel collections: the same documents and questions in several languages, tab-separated, one file per language.

    collection.<lang>.tsv  doc_id<TAB>text           or candidates.<lang>.tsv  doc_id<TAB>text<TAB>context
    queries.<lang>.tsv     query_id<TAB>text
    qrels.tsv              query_id 0 doc_id relevance      or qrels.<lang>.tsv where doc_ids differ by language
    groups.tsv             doc_id or query_id<TAB>group                                      may be absent
    splits/fold<i>.tsv     query_id<TAB>train|dev|test                                       may be absent

A collection without the folder ``splits`` is divided by hash (see ``pipelines.sources.splits``). A fold, the groups and
the judgements that decide a split are held in memory while they are read (about 150 bytes per line); all else streams.
"""

from collections.abc import Callable, Iterator
from typing import Literal

from pydantic import Field

from cluster.component import Component, Location
from cluster.errors import RecipeError, StepError
from cluster.storage import Place
from pipelines.sources.base import Entry
from pipelines.sources.files import File, TableName, find, find_any, list_names
from pipelines.sources.records import make_doc, make_judgement, read_docs, read_qrels, read_queries
from pipelines.sources.splits import BUCKETS, SPLITS, HashedBy, split_by_hash


class Parallel(Component):
    """A parallel collection, divided by question along ``splits/fold<fold>.tsv``, or by hash where there are none.

    ``strict`` leaves the documents of other splits' groups (articles, pages) out of the documents of "train", so that
    no text of a test article is seen in training, not even as a negative. A document without a group is left out too
    where a fold divides the questions, and kept where the hash does. Where a collection that is divided by hash has no
    groups.tsv, the documents left out are those judged relevant to questions of other splits alone. Every other split
    searches all documents.

    ``context`` adds the third column, where a document has one, after its text: an answer is read with its paragraph.
    ``texts = "questions"`` reads the questions as documents, each relevant to itself: in another language, to its
    translation.
    """

    kind: Literal["parallel"] = "parallel"
    path: Location
    fold: int = Field(0, ge=0)
    strict: bool = True
    context: bool = False
    texts: Literal["documents", "questions"] = "documents"

    def docs(self, lang: str, split: str) -> Iterator[Entry]:
        """The documents in ``lang``; under ``strict``, those of "train" alone that belong to no other split. Or the
        split's questions, where those are the texts."""
        if self.texts == "questions":
            return (_as_document(entry, lang) for entry in self.queries(lang, split))
        collection, *deciding = self.files("docs", lang, split)
        entries = read_docs(collection, lang, columns=(2, 3), with_last=self.context)
        if not deciding:
            return entries
        is_training = self._training_test(deciding)
        return (entry for entry in entries if not entry.row or is_training(entry.row["doc_id"]))

    def queries(self, lang: str, split: str) -> Iterator[Entry]:
        """The questions of the split in ``lang``."""
        file, *deciding = self.files("queries", lang, split)
        split_of = self._split_lookup(split, deciding)
        for entry in read_queries(file, lang):
            if not entry.row or split_of(entry.row["query_id"]) == split:
                yield entry

    def qrels(self, lang: str, split: str) -> Iterator[Entry]:
        """The judgements of the split's questions, and of any question that the fold does not know."""
        if self.texts == "questions":
            yield from map(_judge_itself, self.queries(lang, split))
            return
        file, *deciding = self.files("qrels", lang, split)
        split_of = self._split_lookup(split, deciding)
        for entry in read_qrels(file):
            if not entry.row or split_of(entry.row["query_id"]) in (split, None):
                yield entry

    def files(self, table: TableName, lang: str, split: str) -> list[File]:
        """See ``FileSource``: the records first, then what decides the split."""
        root = Place.of(self.path)
        deciding = self._deciding(split)
        if table == "queries" or self.texts == "questions":
            return [find(root, f"queries.{lang}.tsv"), *deciding]
        if table == "qrels":
            return [self._judgements(lang) or find(root, "qrels.tsv"), *deciding]
        either = find_any(root, f"collection.{lang}.tsv", f"candidates.{lang}.tsv")
        collection = either or find(root, f"collection.{lang}.tsv")
        if not self.strict or split != "train":
            return [collection]
        if not self.hashed_by():
            return [collection, *deciding, find(root, "groups.tsv")]
        judged = self._judgements(lang)
        return [collection, *(deciding or ([judged] if judged else []))]

    def ids(self, table: TableName) -> Iterator[str]:
        """See ``FileSource``."""
        is_docs = table == "docs" and self.texts == "documents"
        kinds, key = (("collection", "candidates"), "doc_id") if is_docs else (("queries",), "query_id")
        root = Place.of(self.path)
        for name in list_names(root):
            kind, _, lang = name.removesuffix(".tsv").partition(".")
            if kind in kinds and lang:
                file = find(root, name)
                entries = read_docs(file, lang, (2, 3)) if is_docs else read_queries(file, lang)
                yield from (entry.row[key] for entry in entries if entry.row)

    def hashed_by(self) -> HashedBy:
        """See ``HashSplitSource``."""
        root = Place.of(self.path)
        if list_names(root, "splits"):
            return ""
        return "group" if find_any(root, "groups.tsv") else "query id"

    def _judgements(self, lang: str) -> File | None:
        return find_any(Place.of(self.path), f"qrels.{lang}.tsv", "qrels.tsv")

    def _deciding(self, split: str) -> list[File]:
        """The file that decides which questions are in the split: the fold, or the groups that are hashed.

        Raises:
            RecipeError: there is no such split or fold.
        """
        if split == "all":
            return []
        root = Place.of(self.path)
        if self.hashed_by():
            if self.fold >= BUCKETS:
                raise RecipeError(
                    f"{root.redacted} has no split files and is divided by hash into {BUCKETS} folds: set source.fold "
                    f"to 0..{BUCKETS - 1}, got {self.fold}"
                )
            known, file = list(SPLITS), find_any(root, "groups.tsv")
        else:
            file = find(root, f"splits/fold{self.fold}.tsv")
            known = sorted(set(_read_pairs(file).values()))
        if split not in known:
            raise RecipeError(f"{root.redacted} has no split {split!r}: fold {self.fold} has {', '.join(known)}, all")
        return [file] if file else []

    def _split_lookup(self, split: str, deciding: list[File]) -> Callable[[str], str | None]:
        """A function from a query id to its split; None for a question that the fold's file does not know."""
        if split == "all":
            return lambda _: "all"
        pairs = _read_pairs(deciding[0]) if deciding else {}
        if not self.hashed_by():
            return pairs.get
        return lambda query_id: split_by_hash(pairs.get(query_id, query_id), self.fold)

    def _training_test(self, deciding: list[File]) -> Callable[[str], bool]:
        """A function that says of a doc_id whether training may see the document."""
        hashed_by = self.hashed_by()
        if hashed_by == "query id":
            split_of = self._split_lookup("train", [])
            judged = [entry.row for entry in read_qrels(deciding[0]) if entry.row and entry.row["relevance"] > 0]
            training = {row["doc_id"] for row in judged if split_of(row["query_id"]) == "train"}
            others = {row["doc_id"] for row in judged} - training
            return lambda doc_id: doc_id not in others
        group = _read_pairs(deciding[-1])
        if hashed_by == "group":
            return lambda doc_id: doc_id not in group or split_by_hash(group[doc_id], self.fold) == "train"
        fold = _read_pairs(deciding[0])
        groups = {group[query] for query, part in fold.items() if part == "train" and query in group}
        return lambda doc_id: group.get(doc_id) in groups


def _as_document(question: Entry, lang: str) -> Entry:
    """The question as a document of its id."""
    return make_doc(question.where, question.row["query_id"], question.row["text"], lang) if question.row else question


def _judge_itself(question: Entry) -> Entry:
    """The judgement that a question's document is the one of its id."""
    if not question.row:
        return question
    return make_judgement(question.where, question.row["query_id"], question.row["query_id"], 1)


def _read_pairs(file: File) -> dict[str, str]:
    """Read a file of ``id<TAB>name`` lines. Raises StepError for any other line: a split with holes would leak."""
    pairs = {}
    for where, line in file.lines():
        key, tab, value = (line or "").partition("\t")
        if not (key and tab and value) or "\t" in value:
            raise StepError(f"{where}: expected an id, a tab and a name, got {line!r}. Correct the file")
        pairs[key] = value
    return pairs
