"""What every writer of queries has in common: its tasks, its settings, what it reads and what it returns."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Protocol

from pydantic import Field

from cluster.component import NOT_CONTENT, Component

Task = Literal["question", "keywords", "title", "claim", "instruction"]
EMPTY = "empty"  # the reason why there is no query where nothing was written


class Wording(Component):
    """Phrases of one task and language, and what stands between words in a list. It is read from package data when a
    plan is made, so that a changed phrase makes new queries."""

    phrases: tuple[str, ...] = Field(min_length=1)
    separator: str = ", "


class Writing(Component):
    """Base class of what writes queries.

    Attributes:
        task: what is written. The five kinds are ours, for the diversity of tasks of Retrofitting (arXiv 2510.14274).
        passages: write for this many passages of a language, those whose ids have the lowest hashes. None: for all.
        keep: a query stays if a retriever ranks its passage among the first ``keep``. Read by ``Keep``.
        most: at most this many queries of a language stay, those whose ids have the lowest hashes. None: all. Read by
            ``Cap``.
    """

    task: Task = "question"
    passages: int | None = Field(None, ge=1)
    keep: Annotated[int, NOT_CONTENT] = Field(20, ge=1)
    most: Annotated[int | None, NOT_CONTENT] = Field(None, ge=1)


class Passage(NamedTuple):
    """What a query is written from."""

    doc_id: str
    title: str
    text: str


class Written(NamedTuple):
    """A query, or the reason why there is none."""

    text: str = ""
    reject: str | None = None


class Writer(Protocol):
    """Writes a query for each passage."""

    def write(self, passages: Sequence[Passage]) -> list[Written]:
        """One query, or the reason why there is none, for each passage, in order."""
