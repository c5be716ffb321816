"""Collections in SQuAD's layout: a JSON file for each language, as XQuAD publishes them (``xquad.<lang>.json``).

    {"data": [{"title": "Super_Bowl_50", "paragraphs": [
        {"context": "…", "qas": [{"id": "56beb4343aeaaa14008c925b", "question": "…", "answers": […]}]}]}]}

A paragraph is a document, and relevant to the questions that are asked of it. Its id is its place, ``4-2`` for the
third paragraph of the fifth article: the files of all languages have the same articles and paragraphs in the same
order, and questions with the same ids. Questions are divided by the hash of their article's title (see
``pipelines.sources.splits``). A file is held in memory while it is read, about ten times its size.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from cluster.component import Component, Location
from cluster.errors import RecipeError, StepError
from cluster.storage import Place
from pipelines.sources.base import Entry
from pipelines.sources.files import AbsentFileError, File, TableName, find, list_names
from pipelines.sources.records import make_doc, make_judgement, make_query
from pipelines.sources.splits import BUCKETS, SPLITS, HashedBy, split_by_hash


class Squad(Component):
    """Paragraphs, and the questions that are asked of them.

    ``fold``, 0 to 9, chooses the articles that are held out. ``strict`` leaves the paragraphs of other splits' articles
    out of the documents of "train"; every other split searches all paragraphs.
    """

    kind: Literal["squad"] = "squad"
    path: Location
    fold: int = Field(0, ge=0, lt=BUCKETS)
    strict: bool = True

    def docs(self, lang: str, split: str) -> Iterator[Entry]:
        """The paragraphs in ``lang``."""
        is_divided = self.strict and split == "train"
        for doc_id, where, paragraph in self._paragraphs(lang, split, of_split_alone=is_divided):
            yield make_doc(where, doc_id, paragraph.get("context"), lang)

    def queries(self, lang: str, split: str) -> Iterator[Entry]:
        """The questions of the split in ``lang``."""
        for _, where, paragraph in self._paragraphs(lang, split):
            for question in paragraph.get("qas", []):
                yield make_query(where, question.get("id"), question.get("question"), lang)

    def qrels(self, lang: str, split: str) -> Iterator[Entry]:
        """Each question with its paragraph."""
        for doc_id, where, paragraph in self._paragraphs(lang, split):
            for question in paragraph.get("qas", []):
                yield make_judgement(where, question.get("id"), doc_id, 1)

    def files(self, table: TableName, lang: str, split: str) -> list[File]:
        """See ``FileSource``."""
        if split not in (*SPLITS, "all"):
            raise RecipeError(f"source.kind = squad has no split {split!r}; expected one of {', '.join(SPLITS)}, all")
        return [_find_language(Place.of(self.path), lang)]

    def ids(self, table: TableName) -> Iterator[str]:
        """See ``FileSource``."""
        key = "doc_id" if table == "docs" else "query_id"
        for lang in find_languages(Place.of(self.path)):
            entries = self.docs(lang, "all") if table == "docs" else self.queries(lang, "all")
            yield from (entry.row[key] for entry in entries if entry.row)

    def hashed_by(self) -> HashedBy:
        """See ``HashSplitSource``."""
        return "group"

    def _paragraphs(
        self, lang: str, split: str, of_split_alone: bool = True
    ) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """The id of each paragraph (of the split's articles alone), its place for messages, and what is there."""
        (file,) = self.files("docs", lang, split)
        for article, content in enumerate(_read(file)):
            is_in_split = split == "all" or split_by_hash(content["title"], self.fold) == split
            if of_split_alone and not is_in_split:
                continue
            for number, paragraph in enumerate(content["paragraphs"]):
                yield f"{article}-{number}", f"{file.name}:data[{article}].paragraphs[{number}]", paragraph


def find_languages(root: Place) -> dict[str, File]:
    """The files of a directory by language: ``<lang>.json`` or ``<name>.<lang>.json``."""
    named = {name: re.fullmatch(r"(?:.+\.)?([a-zA-Z]{2,3}(?:-\w+)?)\.json", name) for name in list_names(root)}
    return {match[1]: find(root, name) for name, match in named.items() if match}


def _find_language(root: Place, lang: str) -> File:
    if file := find_languages(root).get(lang):
        return file
    there = ", ".join(list_names(root)) or "nothing"
    raise AbsentFileError(
        f"expected NAME.{lang}.json in {root.redacted}, found there: {there}. Set source.path to the directory that "
        "holds it, or choose another language"
    )


def _read(file: File) -> list[dict[str, Any]]:
    """The articles of a file. Raises StepError where it is not in SQuAD's layout."""
    try:
        articles = json.loads(b"".join(file.blocks()))["data"]
        if all(isinstance(a["title"], str) and all(isinstance(p, dict) for p in a["paragraphs"]) for a in articles):
            return list(articles)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StepError(f"{file.name}: {_EXPECTED}, got what gives {error!r}") from error
    raise StepError(f"{file.name}: {_EXPECTED}, with a title that is text")


_EXPECTED = 'expected SQuAD\'s layout, {"data": [{"title": …, "paragraphs": [{"context": …, "qas": […]}]}]}'
