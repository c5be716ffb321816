"""The encoder deployment: texts of queries in, token vectors out, several queries per forward pass. It also encodes,
scores and matches texts that a request brings (``encoding``).

No time is spent waiting for a batch to fill: while one batch is encoded the next one gathers, so an idle server answers
at once and a busy one works in full batches.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from ray import serve

from cluster.accelerators import hide_accelerators
from cluster.artifact import Artifact
from pipelines.encoder import EncoderConfig, open_encoder
from serving import encoding
from serving.catalog import Catalog, Part
from serving.encoding import Encoded, EncoderFacts, Passages, Scored, Task, TokenMatch

MAX_BATCH = 32


class Encoder(Part):
    """Holds the encoder that ``config`` names: a ready checkpoint, or one of the artifact ``student``.

    It is the root of its application: ``others`` are the handles of the shards.
    """

    ONGOING: ClassVar = 2 * MAX_BATCH  # one batch in work and one gathering; Serve's default of 5 would never fill one

    def __init__(
        self,
        catalog: Catalog,
        config: EncoderConfig,
        student: Artifact | None,
        gpus: float = 0,
        others: Sequence[Any] = (),
    ):
        super().__init__(catalog.fingerprint, catalog, others)
        if not gpus:
            hide_accelerators()  # Ray leaves the machine's visible to a replica that asked for none
        self.model: Any = open_encoder(config, {"student": student} if student else {})
        self.model.encode_queries(["warm up"])  # the first pass allocates and compiles; no user should wait for it

    async def encode(self, fingerprint: str, text: str) -> np.ndarray:
        """Vectors of a query, float32 [tokens, dim] ([1, dim] of a dense student)."""
        self.check_fingerprint(fingerprint)
        return await self.encode_batch(text)

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.0)
    async def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """Vectors of each query. Calls pass one text each, and Serve gathers them."""
        return await asyncio.to_thread(self.model.encode_queries, texts)

    async def describe_encoder(self, fingerprint: str) -> EncoderFacts:
        """Describe the encoder."""
        return await self._run(fingerprint, encoding.describe_encoder)

    async def encode_texts(self, fingerprint: str, texts: list[str], task: Task) -> Encoded:
        """Encode given texts; see ``serving.encoding``, as for the methods below."""
        return await self._run(fingerprint, encoding.encode_texts, texts, task)

    async def score_texts(self, fingerprint: str, query: str, texts: list[str], passages: Passages) -> Scored:
        """Score given texts against a query."""
        return await self._run(fingerprint, encoding.score_texts, query, texts, passages)

    async def match_tokens(
        self, fingerprint: str, query: str, texts: list[str], passages: Passages
    ) -> list[list[TokenMatch]]:
        """Match the tokens of a query with those of given texts."""
        return await self._run(fingerprint, encoding.match_tokens, query, texts, passages)

    async def _run(self, fingerprint: str, function: Callable[..., Any], *arguments: Any) -> Any:
        self.check_fingerprint(fingerprint)
        return await asyncio.to_thread(function, self.model, *arguments)
