"""The reranker deployment: a scorer of ``pipelines.scorers``, which reads a question and the texts of results.

One batch of texts is scored at a time; others wait, and each request sends its texts in pieces, so that two requests
take turns. Cost: that of the scorer for each text.
"""

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cluster.accelerators import hide_accelerators
from serving.catalog import RERANKER, Part
from serving.served import Layout
from serving.tracing import trace_call

if TYPE_CHECKING:
    from pipelines.scorers import Scorer


class Reranker(Part):
    """Holds the scorer of what is served."""

    ONGOING: ClassVar = 32

    def __init__(self, layout: Layout, gpus: float = 0):
        super().__init__(layout, RERANKER)
        if not gpus:
            hide_accelerators()  # Ray leaves the machine's visible to a replica that asked for none
        served = layout.served
        if served.rerank is None:
            raise ValueError(f"recipe {served.recipe} has no scorer of results to open")
        self.teacher: Any = open_scorer(served.rerank.scorer)
        self.teacher.score(["warm up"], ["warm up"], np.array([[0, 0]]))  # the first pass allocates
        self.free = asyncio.Lock()

    @trace_call
    async def score(self, edition: str, query: str, texts: list[str]) -> list[float]:
        """Score texts, each with its title, against a query: the larger, the more relevant."""
        self.read_number(edition)
        async with self.free:
            return await asyncio.to_thread(score_texts, self.teacher, query, texts)


def open_scorer(scorer: "Scorer") -> Any:
    """Load a scorer that reads nothing but texts (``pipelines.recipe.tables.Rerank`` lets no other pass)."""
    return scorer.build(None)  # type: ignore[arg-type]


def score_texts(teacher: Any, query: str, texts: list[str]) -> list[float]:
    """Score texts against a query."""
    pairs_P2 = np.array([[0, at] for at in range(len(texts))])
    scores: list[float] = teacher.score([query], texts, pairs_P2).tolist()
    return scores
