"""What a teacher is: scores for pairs of a query and a document, and what it may know of the collection."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cluster.artifact import Artifact
from pipelines.text import join_title

WINDOW = 16_384  # pairs tokenised at a time: sorting over more saves no padding, and their tokens stay below 100 MB


@dataclass(frozen=True)
class Collection:
    """The documents that are scored, as a whole, and the languages of the two sides."""

    docs: Artifact
    query_lang: str
    doc_lang: str

    def texts(self) -> Iterator[list[str]]:
        """The text of every document (title first, where there is one), one part after another."""
        for rows in self.docs.tables(["title", "text"]):
            titles, texts = rows["title"].to_pylist(), rows["text"].to_pylist()
            yield [join_title(title, text) for title, text in zip(titles, texts, strict=True)]


class Teacher(Protocol):
    """Scores pairs: the larger, the more relevant. A score says how one document compares with others for one query."""

    def score(self, queries: list[str], docs: list[str], pairs_P2: np.ndarray) -> np.ndarray:
        """Return float32 ``scores_P`` for P pairs: row ``(i, j)`` of ``pairs_P2`` is ``queries[i]`` with ``docs[j]``.

        Queries and documents come once each, so that what depends on one text alone is computed once.
        """


def score_in_windows(
    score: Callable[[list[str], list[str]], np.ndarray], queries: list[str], docs: list[str], pairs_P2: np.ndarray
) -> np.ndarray:
    """Scores of all pairs, float32, from a function of the texts of some of them: windows of pairs of similar length.

    A model that reads both texts together then tokenises a window at a time, and its batches hold little padding.
    """
    scores_P = np.empty(len(pairs_P2), np.float32)
    order_P = np.argsort([len(queries[i]) + len(docs[j]) for i, j in pairs_P2.tolist()], kind="stable")
    for start in range(0, len(order_P), WINDOW):
        window = order_P[start : start + WINDOW]
        scores_P[window] = score([queries[i] for i in pairs_P2[window, 0]], [docs[j] for j in pairs_P2[window, 1]])
    return scores_P
