"""Survey a collection: how much of what it holds, in which languages, and what it lacks.

Every table is read once, to its millionth record; memory holds 8 bytes for each document id of one language.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from cluster.errors import RecipeError, StorageError
from cluster.storage import Place
from pipelines.chunks import chunk
from pipelines.ids import IdSet
from pipelines.layouts import Layout, recognise
from pipelines.sources.base import Entry
from pipelines.sources.files import FileSource, TableName
from pipelines.sources.records import BATCH

LOOK = 1_000_000  # records of a table that are counted
TRANSLATED = 0.5  # share of the documents that must be there in another language to call it a translation
EXAMPLES_FROM = 1000  # questions among which examples are chosen
EXAMPLE_SPLITS = ("test", "dev.small", "dev", "all")


@dataclass(frozen=True)
class Survey:
    """What a collection holds. Counts are of good records; those of a table end at ``LOOK``."""

    layout: Layout
    docs: dict[str, int]  # by language
    queries: dict[str, int]  # by language
    judgements: dict[str, int]  # by language of the documents
    splits: dict[str, int]  # questions of ``original`` by split
    shared: dict[str, float]  # language → share of the documents of ``original`` that it has too
    rejects: dict[str, int]  # records that cannot be read, by reason
    original: str  # the language whose texts the others translate

    @property
    def translations(self) -> list[str]:
        """The other languages in which the documents are there."""
        return [lang for lang, share in self.shared.items() if share >= TRANSLATED]

    @property
    def is_judged(self) -> bool:
        """Whether there are questions and judgements."""
        return any(self.queries.values()) and any(self.judgements.values())

    @property
    def is_trainable(self) -> bool:
        """Whether a student can be trained and measured: translations, training questions, and judgements."""
        return bool(self.translations and self.is_judged and self.train_split)

    @property
    def query_lang(self) -> str:
        """The language of the questions: that of ``original``, or the first that has any."""
        asked = [lang for lang, count in self.queries.items() if count]
        return self.original if self.original in asked or not asked else asked[0]

    @property
    def train_split(self) -> str:
        """The split to train on, or ""."""
        return self._choose_split("train", "train.judged")

    @property
    def dev_split(self) -> str:
        """The split whose questions choose the best checkpoint, or ""."""
        return self._choose_split("dev")

    @property
    def test_split(self) -> str:
        """The split to measure on."""
        return self._choose_split("test", "dev.small", "dev") or "all"

    def _choose_split(self, *names: str) -> str:
        """The first of some splits that has questions, or ""."""
        return next((name for name in names if self.splits.get(name)), "")

    @property
    def is_whole(self) -> bool:
        """Whether every count is exact."""
        return max([*self.docs.values(), *self.queries.values(), *self.judgements.values(), 0]) < LOOK


def survey(root: Place, lang: str) -> Survey:
    """Recognise and count the collection in ``root``. Records whose language nothing says are in ``lang``.

    Raises:
        RecipeError: there is no collection.
        StorageError: a file cannot be read.
    """
    layout = recognise(root, lang)
    source, rejects = layout.source, Counter[str]()
    asked = [code for code in layout.docs if code in layout.queries]
    original = next((code for code in ("en", *asked, *layout.docs) if code in layout.docs), lang)
    known, docs, shared = IdSet(), {}, {}
    for code in (original, *(code for code in layout.docs if code != original)):
        found, common = 0, 0
        for ids in chunk(_good(source.docs(code, "all"), "doc_id", rejects), BATCH):
            found += len(ids)
            common += int((known.add(ids) if code == original else known.has(ids)).sum())
        docs[code] = found
        if code != original:
            shared[code] = common / max(1, docs[original])
    queries = {code: _count_all(layout, "queries", code, rejects) for code in layout.queries}
    query_lang = original if original in queries else next(iter(queries), original)
    splits = {split: _count(source, "queries", query_lang, split, Counter()) for split in layout.splits if queries}
    return Survey(layout, docs, queries, _count_judgements(layout, rejects), splits, shared, dict(rejects), original)


def example_queries(source: Any, n: int = 3, lang: str = "en") -> list[str]:
    """Choose ``n`` questions of the collection for its search page and the end of a run; fewer where it has fewer.

    They are taken at even distances from the first thousand of the test questions, or else of the dev questions, or of
    all. The same collection gives the same ones.
    """
    for split in EXAMPLE_SPLITS:
        try:
            entries = source.queries(lang, split)
            texts = list(dict.fromkeys(e.row["text"].strip() for e in islice(entries, EXAMPLES_FROM) if e.row))
        except RecipeError:  # no such split, no questions in this language, or no questions at all
            continue
        if texts:
            return [texts[i * len(texts) // n] for i in range(min(n, len(texts)))] if len(texts) > n else texts
    return []


def _count(source: Any, table: TableName, lang: str, split: str, rejects: Counter[str]) -> int:
    """Count the good records of a table; 0 where the collection has no such table."""
    key = "doc_id" if table == "docs" else "query_id"
    try:
        return sum(1 for _ in _good(getattr(source, table)(lang, split), key, rejects))
    except RecipeError:
        return 0


def _count_all(layout: Layout, table: TableName, lang: str, rejects: Counter[str]) -> int:
    """Count over all splits; one by one where files of some are not there (MS MARCO with dev.small alone)."""
    whole = _count(layout.source, table, lang, "all", rejects)
    return whole or sum(_count(layout.source, table, lang, split, rejects) for split in layout.splits)


def _count_judgements(layout: Layout, rejects: Counter[str]) -> dict[str, int]:
    """Count by language of the documents; languages that share their files share the count."""
    counts: dict[tuple[str, ...], int] = {}
    found = {}
    for lang in layout.docs if layout.queries else ():
        names = _name_files(layout.source, lang)
        if names not in counts:
            counts[names] = _count_all(layout, "qrels", lang, rejects)
        found[lang] = counts[names]
    return found


def _name_files(source: Any, lang: str) -> tuple[str, ...]:
    try:
        return tuple(file.name for file in source.files("qrels", lang, "all")) if isinstance(source, FileSource) else ()
    except (RecipeError, StorageError):
        return ()


def _good(entries: Iterator[Entry], key: str, rejects: Counter[str]) -> Iterator[str]:
    """Yield the ids of the good records among the first ``LOOK``, and count the others by their reason."""
    for entry in islice(entries, LOOK):
        if entry.row and not entry.reject:
            yield entry.row[key]
        else:
            rejects[entry.reject] += 1
