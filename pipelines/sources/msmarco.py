"""MS MARCO passage ranking, and mMARCO, its translations: the tab-separated files as they are published.

    collection.tsv  queries.{train,dev,dev.small}.tsv  qrels.{train,dev,dev.small}.tsv
    mmarco/data/google/collections/<language>_collection.tsv
    mmarco/data/google/queries/{train,dev}/<language>_queries.{train,dev,dev.small}.tsv

One set of ids runs through all languages, and mMARCO has no judgements but MS MARCO's. Of the 808,731 training queries
502,939 are judged: they are the split ``train.judged``, on which the published students were trained.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain
from typing import Literal

from cluster.component import Component, Location
from cluster.errors import RecipeError
from cluster.storage import Place
from pipelines import languages
from pipelines.sources.base import Entry
from pipelines.sources.files import File, TableName, find
from pipelines.sources.records import keep_judged, read_docs, read_qrels, read_queries

JUDGED = "train.judged"  # the queries of train that occur in qrels.train.tsv
SPLITS = {  # the files that each split is read from
    "train": ("train",),
    JUDGED: ("train",),
    "dev": ("dev",),
    "dev.small": ("dev.small",),
    "all": ("train", "dev"),
}
TRANSLATIONS = "mmarco/data/google"


class _Tables(Component, ABC):
    """The tables of the published files; a subclass says in ``files`` which they are."""

    def docs(self, lang: str, split: str) -> Iterator[Entry]:
        """All passages: every split shares the collection."""
        return chain.from_iterable(read_docs(file, lang) for file in self.files("docs", lang, split))

    def queries(self, lang: str, split: str) -> Iterator[Entry]:
        """The questions of the split."""
        files = self.files("queries", lang, split)
        if split == JUDGED:
            return keep_judged(read_queries(files[0], lang), read_qrels(files[1]))
        return chain.from_iterable(read_queries(file, lang) for file in files)

    def qrels(self, lang: str, split: str) -> Iterator[Entry]:
        """MS MARCO's judgements, which hold for every language. Relevance is always 1."""
        return chain.from_iterable(map(read_qrels, self.files("qrels", lang, split)))

    @abstractmethod
    def files(self, table: TableName, lang: str, split: str) -> list[File]:
        """See ``FileSource``."""


class MsMarco(_Tables):
    """MS MARCO in its one language. ``dev.small`` is the part of ``dev`` that papers report; "all" is train and dev."""

    kind: Literal["msmarco"] = "msmarco"
    path: Location
    lang: str = "en"

    def files(self, table: TableName, lang: str, split: str) -> list[File]:
        """See ``FileSource``."""
        parts = _parts(split)
        if lang != self.lang:
            raise RecipeError(f"this MS MARCO source is in {self.lang}, asked for {lang}: use source.kind=mmarco")
        place = Place.of(self.path)
        if table == "docs":
            return [find(place, "collection.tsv")]
        judged = [find(place, "qrels.train.tsv")] if table == "queries" and split == JUDGED else []
        return [*(find(place, f"{table}.{part}.tsv") for part in parts), *judged]

    def ids(self, table: TableName) -> Iterator[str]:
        """See ``FileSource``."""
        return _ids(self, table, self.lang)


class Mmarco(_Tables):
    """mMARCO beside MS MARCO: English is the original, any other language its translation.

    ``path`` holds MS MARCO's files; ``translations`` holds mMARCO's ``collections`` and ``queries``, and is
    ``<path>/mmarco/data/google`` unless set.
    """

    kind: Literal["mmarco"] = "mmarco"
    path: Location
    translations: Location | None = None

    def files(self, table: TableName, lang: str, split: str) -> list[File]:
        """See ``FileSource``."""
        if table == "qrels" or lang == "en":
            return MsMarco(path=self.path).files(table, "en", split)
        parts, name = _parts(split), languages.to_mmarco(lang)
        root = Place.of(self.translations) if self.translations else Place.of(self.path) / TRANSLATIONS
        if table == "docs":
            return [find(root, f"collections/{name}_collection.tsv")]
        judged = [find(Place.of(self.path), "qrels.train.tsv")] if split == JUDGED else []
        queries = [find(root, f"queries/{p.partition('.')[0]}/{name}_queries.{p}.tsv") for p in parts]
        return [*queries, *judged]

    def ids(self, table: TableName) -> Iterator[str]:
        """See ``FileSource``: MS MARCO's, for every language has the same."""
        return _ids(MsMarco(path=self.path), table, "en")


def _parts(split: str) -> tuple[str, ...]:
    """The parts of the published files that a split is read from."""
    if split not in SPLITS:
        raise RecipeError(f"MS MARCO has no split {split!r}; it has {', '.join(SPLITS)}")
    return SPLITS[split]


def _ids(source: MsMarco, table: TableName, lang: str) -> Iterator[str]:
    read, key = (source.docs, "doc_id") if table == "docs" else (source.queries, "query_id")
    return (entry.row[key] for entry in read(lang, "all") if entry.row)
