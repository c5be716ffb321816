"""What a source gives: docs, queries and qrels, one entry at a time, in an order that never changes."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

TopicField = Literal["title", "description", "narrative"]  # the parts of a TREC topic that may make a question


class Entry(NamedTuple):
    """A record of a source: its row, or the reason to reject it.

    ``where`` names the record in messages: ``collection.tsv:17`` or ``atlas:currency-IR``. A reject has no row;
    ``text`` is how its record begins.
    """

    where: str
    row: dict[str, Any] | None
    reject: str = ""
    text: str = ""


class Source(Protocol):
    """A collection: documents in one or more languages, queries, and judgements.

    ``split`` is "train", "dev", "test" or "all". A source that has no such split raises RecipeError, naming those it
    has; "all" always works. Entries stream: memory does not grow with the collection.
    """

    kind: str

    def docs(self, lang: str, split: str) -> Iterator[Entry]:
        """Rows of DOCS (``doc_id, lang, title, text``). The same doc_id in another language is its translation."""

    def queries(self, lang: str, split: str) -> Iterator[Entry]:
        """Rows of QUERIES (``query_id, lang, text``)."""

    def qrels(self, lang: str, split: str) -> Iterator[Entry]:
        """Rows of QRELS (``query_id, doc_id, relevance``) for the documents of ``lang``."""


@runtime_checkable
class PairSource(Protocol):
    """A source of sentence pairs with gold scores, in place of documents, questions and judgements."""

    def pairs(self, lang: str, split: str) -> Iterator[Entry]:
        """Rows of PAIRS (``pair_id, lang, left, right, score``). The same pair_id in another language is the same pair,
        translated."""
