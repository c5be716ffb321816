"""What the gateway asks of the encoder deployment besides queries: texts to encode, to score, to match.

Texts go in pieces of ``TEXTS_PER_CALL``, one call after another, so that searches are encoded in between and nothing is
encoded for a request that has passed its time limit. Vectors come by reference: a message between deployments holds at
most 4 MiB.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from serving.admission import arrival
from serving.calls import gather
from serving.catalog import ENCODER
from serving.encoding import Encoded, EncoderFacts, Passages, Scored, Task, TokenMatch
from serving.messages import Info
from serving.tracing import carry, trace_stage

TEXTS_PER_CALL = 32


class EncoderCalls:
    """The part of a ``Backend`` that needs nothing but the encoder. A generation inherits it."""

    info: Info
    edition: str
    parts: Mapping[str, Any]
    _facts: EncoderFacts | None = None

    async def describe_encoder(self) -> EncoderFacts:
        """See ``Backend``. Asked once."""
        if self._facts is None:
            self._facts = await self._ask("describe_encoder", self._limit())
        return self._facts

    async def encode_texts(self, texts: Sequence[str], task: Task) -> Encoded:
        """See ``Backend``."""
        deadline = self._limit()
        pieces = [await self._ask("encode_texts", deadline, piece, task) for piece in _cut(texts)]
        return Encoded(*([item for piece in pieces for item in piece[at]] for at in range(3)))

    async def score_texts(self, query: str, texts: Sequence[str]) -> Scored:
        """See ``Backend``."""
        deadline = self._limit()
        pieces = [await self._ask("score_texts", deadline, query, piece, self._passages) for piece in _cut(texts)]
        scores = [score for piece in pieces for score in piece.scores]
        return Scored(scores, pieces[0].largest, sum(piece.tokens for piece in pieces))

    async def match_tokens(self, query: str, texts: Sequence[str]) -> list[list[TokenMatch]]:
        """See ``Backend``."""
        deadline = self._limit()
        pieces = [await self._ask("match_tokens", deadline, query, piece, self._passages) for piece in _cut(texts)]
        return [matches for piece in pieces for matches in piece]

    @property
    def _passages(self) -> Passages:
        return self.info.passage_length, self.info.passage_stride

    def _limit(self) -> float:
        return arrival.get(time.perf_counter()) + self.info.limits.timeout_s

    async def _ask(self, method: str, deadline: float, *arguments: Any) -> Any:
        handle = self.parts[ENCODER].options(_by_reference=True)
        with trace_stage(method, self.edition):
            call = getattr(handle, method).remote(self.edition, *arguments, **carry())
            return (await gather({ENCODER: call}, deadline))[ENCODER]


def _cut(texts: Sequence[str]) -> list[list[str]]:
    return [list(texts[at : at + TEXTS_PER_CALL]) for at in range(0, len(texts), TEXTS_PER_CALL)]
