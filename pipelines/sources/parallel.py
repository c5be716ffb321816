"""Parallel collections: the same documents and questions in several languages, tab-separated, one file per language.

    collection.<lang>.tsv  doc_id<TAB>text           or candidates.<lang>.tsv  doc_id<TAB>text<TAB>context (left out)
    queries.<lang>.tsv     query_id<TAB>text
    qrels.tsv              query_id 0 doc_id relevance      or qrels.<lang>.tsv where doc_ids differ by language
    groups.tsv             doc_id or query_id<TAB>group
    splits/fold<i>.tsv     query_id<TAB>train|dev|test

A fold and the groups are held in memory while they are read (about 150 bytes per line); all else streams.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from cluster.component import Component, Location
from cluster.errors import RecipeError, StepError
from cluster.storage import Place
from pipelines.sources.base import Entry
from pipelines.sources.files import File, TableName, find, find_any, names
from pipelines.sources.records import trec_qrels, tsv_docs, tsv_queries


class Parallel(Component):
    """A parallel collection, split by question along ``splits/fold<fold>.tsv``; without a fold there is only "all".

    ``strict`` leaves the documents of other splits' groups (articles, pages) out of the documents of "train", so that
    no text of a test article is seen in training, not even as a negative. Every other split searches all documents.
    """

    kind: Literal["parallel"] = "parallel"
    path: Location
    fold: int | None = Field(None, ge=0)
    strict: bool = True

    def docs(self, lang: str, split: str) -> Iterator[Entry]:
        """The documents in ``lang``; under ``strict``, those of "train" alone whose group has a training question."""
        collection, *of_split = self.files("docs", lang, split)
        entries = tsv_docs(collection, lang, columns=(2, 3))
        return self._training_docs(entries, *of_split) if of_split else entries

    def queries(self, lang: str, split: str) -> Iterator[Entry]:
        """The questions of the split in ``lang``."""
        file, *fold = self.files("queries", lang, split)
        part = _pairs(fold[0]) if fold else {}
        for entry in tsv_queries(file, lang):
            if not (fold and entry.row) or part.get(entry.row["query_id"]) == split:
                yield entry

    def qrels(self, lang: str, split: str) -> Iterator[Entry]:
        """The judgements of the split's questions, and of any question that the fold does not know."""
        file, *fold = self.files("qrels", lang, split)
        part = _pairs(fold[0]) if fold else {}
        for entry in trec_qrels(file):
            if not (fold and entry.row) or part.get(entry.row["query_id"], split) == split:
                yield entry

    def files(self, table: TableName, lang: str, split: str) -> list[File]:
        """See ``FileSource``: the records first, then what the split needs."""
        root, fold = Place.of(self.path), self._fold(split)
        if table == "queries":
            return [find(root, f"queries.{lang}.tsv"), *fold]
        if table == "qrels":
            return [find_any(root, f"qrels.{lang}.tsv") or find(root, "qrels.tsv"), *fold]
        either = find_any(root, f"collection.{lang}.tsv", f"candidates.{lang}.tsv")
        collection = either or find(root, f"collection.{lang}.tsv")
        return [collection, *fold, find(root, "groups.tsv")] if self.strict and split == "train" else [collection]

    def ids(self, table: TableName) -> Iterator[str]:
        """See ``FileSource``."""
        kinds, key = (("collection", "candidates"), "doc_id") if table == "docs" else (("queries",), "query_id")
        root = Place.of(self.path)
        for name in names(root):
            kind, _, lang = name.removesuffix(".tsv").partition(".")
            if kind in kinds and lang:
                file = find(root, name)
                entries = tsv_docs(file, lang, (2, 3)) if table == "docs" else tsv_queries(file, lang)
                yield from (entry.row[key] for entry in entries if entry.row)

    def _fold(self, split: str) -> list[File]:
        """The fold's file, where the split needs one. Raises RecipeError for a split that is not in it."""
        if split == "all":
            return []
        if self.fold is None:
            raise RecipeError(
                f"a parallel collection without a fold has no split {split!r}: set source.fold=0..4, or split=all"
            )
        file = find(Place.of(self.path), f"splits/fold{self.fold}.tsv")
        known = sorted(set(_pairs(file).values()))
        if split not in known:
            raise RecipeError(
                f"{file.name} in {Place.of(self.path).redacted} has no split {split!r}; it has {', '.join(known)}, all"
            )
        return [file]

    @staticmethod
    def _training_docs(entries: Iterator[Entry], fold: File, groups: File) -> Iterator[Entry]:
        group = _pairs(groups)
        training = {group.get(query) for query, part in _pairs(fold).items() if part == "train"} - {None}
        return (entry for entry in entries if not entry.row or group.get(entry.row["doc_id"]) in training)


def _pairs(file: File) -> dict[str, str]:
    """A file of ``id<TAB>name`` lines. Raises StepError for any other line: a split with holes would leak."""
    pairs = {}
    for where, line in file.lines():
        key, tab, value = (line or "").partition("\t")
        if not (key and tab and value) or "\t" in value:
            raise StepError(f"{where}: expected an id, a tab and a name, got {line!r}. Mend the file")
        pairs[key] = value
    return pairs
