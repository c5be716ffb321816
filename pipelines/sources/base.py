"""What a source gives: docs, queries and qrels, one entry at a time, in an order that never changes."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol


class Entry(NamedTuple):
    """One record of a source: a row, or the reason why it is none.

    ``where`` names the record in messages: ``collection.tsv:17`` or ``atlas:currency-IR``; ``text`` is how a record
    begins that is no row.
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
