"""Semantic textual similarity: pairs of sentences with a gold score from 0 to 5, the same pairs in several languages.

    <lang>.<split>.tsv   sentence1<TAB>sentence2<TAB>score, no header; split is train, dev or test

Line n of a split is one pair in every language, with one score, and has the id ``<split>-<n>``. So a pair may have its
left sentence in one language and its right one in another: both tables have the same ids. A file that breaks this is an
error, never a reject: a line that is left out would put two texts together that do not belong together.

There are no documents, no questions and no judgements. Files are read as streams, each language beside the first one.
"""

import math
from collections.abc import Iterator
from hashlib import blake2b
from itertools import zip_longest
from typing import Any, Literal, NoReturn

from pydantic import Field, model_validator

from cluster.component import Component, Location
from cluster.errors import RecipeError, StepError
from cluster.storage import Place
from pipelines.sources.base import Entry
from pipelines.sources.files import File, TableName, find, list_names
from pipelines.sources.records import NOT_UTF8, SHOWN
from pipelines.sources.splits import SPLITS
from pipelines.tables import BEST_SCORE


class Sts(Component):
    """Pairs of sentences with scores, divided as published, or, with ``folds``, into so many folds by hash.

    With folds the pairs of all published splits are put together and divided by the hash of their ids: fold f tests on
    bucket f, develops on the next, and trains on the others (five folds: 3/1/1, as Multilingual MAML-Align). A sentence
    that is in several pairs may then be in several splits, as it may in the published ones.
    """

    kind: Literal["sts"] = "sts"
    path: Location
    folds: int | None = Field(None, ge=3)  # None: train, dev and test as published
    fold: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _check_fold(self) -> "Sts":
        if self.folds is None and self.fold:
            raise ValueError(f"fold = {self.fold} is one of the folds: say how many with source.folds")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold = {self.fold}: source.folds = {self.folds} are numbered 0..{self.folds - 1}")
        return self

    def pairs(self, lang: str, split: str) -> Iterator[Entry]:
        """Rows of PAIRS (``pair_id, lang, left, right, score``) of the split, in the order of the files.

        Raises:
            StepError: a line is no pair with a score from 0 to 5, or the language has other lines than the first
                language of the collection; the message names the file and the line.
        """
        for name in self._published(split):
            for where, row in _read_aligned(find(self._root, f"{lang}.{name}.tsv"), self._first(name), lang, name):
                if split == "all" or self.folds is None or self._split_of(row["pair_id"]) == split:
                    yield Entry(where, row)

    def docs(self, lang: str, split: str) -> Iterator[Entry]:
        """Raise RecipeError: there are none."""
        self._refuse("docs")

    def queries(self, lang: str, split: str) -> Iterator[Entry]:
        """Raise RecipeError: there are none."""
        self._refuse("queries")

    def qrels(self, lang: str, split: str) -> Iterator[Entry]:
        """Raise RecipeError: there are none."""
        self._refuse("qrels")

    def files(self, table: TableName, lang: str, split: str) -> list[File]:
        """See ``FileSource``."""
        if table != "pairs":
            self._refuse(table)
        return [find(self._root, f"{lang}.{name}.tsv") for name in self._published(split)]

    def ids(self, table: TableName) -> Iterator[str]:
        """See ``FileSource``."""
        there = [name for name in SPLITS if table == "pairs" and self._languages(name)]
        return (row["pair_id"] for name in there for _, row in _read_pairs(self._first(name), "", name))

    @property
    def _root(self) -> Place:
        return Place.of(self.path)

    def _published(self, split: str) -> tuple[str, ...]:
        """The published splits that hold the pairs of ``split``."""
        if split not in (*SPLITS, "all"):
            raise RecipeError(f"sentence pairs have no split {split!r}: expected {', '.join(SPLITS)} or all")
        if split != "all" and self.folds is None:
            return (split,)
        there = tuple(name for name in SPLITS if self._languages(name))
        return there or ("train",)  # which is then found to be absent

    def _languages(self, split: str) -> list[str]:
        """The languages that have a file of this split."""
        names = (name.split(".") for name in list_names(self._root))
        return sorted(parts[0] for parts in names if len(parts) == 3 and parts[1:] == [split, "tsv"])

    def _first(self, split: str) -> File:
        """The file that those of all other languages are compared with."""
        return find(self._root, f"{self._languages(split)[0]}.{split}.tsv")

    def _split_of(self, pair_id: str) -> str:
        assert self.folds is not None
        bucket = int.from_bytes(blake2b(pair_id.encode(), digest_size=8).digest(), "little") % self.folds
        return {0: "test", 1: "dev"}.get((bucket - self.fold) % self.folds, "train")

    def _refuse(self, table: TableName) -> NoReturn:
        raise RecipeError(
            f"source.kind = sts has pairs of sentences and no {table}: they are compared, not searched. Train with "
            'train.loss.kind = "cosine", and take documents from another source, as [evaluate.NAME] with source = '
            "{ kind = …, path = … }"
        )


Pair = tuple[str, dict[str, Any]]  # where it stands, as ``de.train.tsv:7``, and its row


def _read_aligned(file: File, first: File, lang: str, split: str) -> Iterator[Pair]:
    """The pairs of a file, line by line beside those of the collection's first language."""
    if file.name == first.name:
        yield from _read_pairs(file, lang, split)
        return
    for own, other in zip_longest(_read_pairs(file, lang, split), _read_pairs(first, lang, split)):
        if own is None or other is None:
            longer, shorter, there = (file, first, own) if own else (first, file, other)
            raise StepError(
                f"{there[0] if there else longer.name}: expected as many lines in every language, and {shorter.name} "
                "ends before this line: line n must be the same pair in all of them. Complete the shorter file"
            )
        (where, row), (where_first, row_first) = own, other
        if row["score"] != row_first["score"]:
            raise StepError(
                f"{where}: the score is {row['score']:g}, that of {where_first} is {row_first['score']:g}: "
                "line n must be the same pair with the same score in every language. Correct the files"
            )
        yield own


def _read_pairs(file: File, lang: str, split: str) -> Iterator[Pair]:
    """The pairs of one file. Raises StepError, which names file and line, for a line that is none."""
    for number, (where, line) in enumerate(file.lines(), 1):
        if line is None:
            raise StepError(f"{where}: {NOT_UTF8}: expected UTF-8. Save the file in that encoding")
        cells = line.split("\t")
        if len(cells) != 3:
            raise StepError(
                f"{where}: expected sentence1, sentence2 and score between tabs, got {len(cells)} columns: "
                f"{line[:SHOWN]!r}. Correct the file"
            )
        left, right, score = cells
        if not left.strip() or not right.strip():
            side = "second" if left.strip() else "first"
            raise StepError(f"{where}: the {side} sentence is empty: expected two sentences. Correct the file")
        row = {"pair_id": f"{split}-{number}", "lang": lang, "left": left, "right": right}
        yield where, {**row, "score": _read_score(where, score)}


def _read_score(where: str, text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not 0 <= score <= BEST_SCORE:
        raise StepError(f"{where}: expected a score from 0 to {BEST_SCORE:g}, got {text[:SHOWN]!r}. Correct the file")
    return score
