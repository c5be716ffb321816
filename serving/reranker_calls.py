"""What the gateway asks of the deployment that scores results again.

Texts go in pieces of ``TEXTS_PER_CALL``, one call after another, so that nothing is scored for a request that has
passed its time limit, and requests take turns.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.text import join_title
from serving.admission import arrival
from serving.calls import gather
from serving.catalog import RERANKER
from serving.messages import Info, Result
from serving.tracing import carry

TEXTS_PER_CALL = 16


class RerankerCalls:
    """The part of a ``Backend`` that scores results again. A generation inherits it."""

    info: Info
    edition: str
    parts: Mapping[str, Any]

    async def score_again(self, query: str, results: Sequence[Result]) -> list[float]:
        """See ``Backend``."""
        deadline = arrival.get(time.perf_counter()) + self.info.limits.timeout_s
        texts = [join_title(result.title, result.text) for result in results]
        handle = self.parts[RERANKER].options(_by_reference=True)  # texts may be longer than a message
        scores: list[float] = []
        for start in range(0, len(texts), TEXTS_PER_CALL):
            piece = texts[start : start + TEXTS_PER_CALL]
            call = handle.score.remote(self.edition, query, piece, **carry())
            scores += (await gather({RERANKER: call}, deadline))[RERANKER]
        return scores
