"""The encoder deployment: texts of queries in, token vectors out, several queries per forward pass. It also encodes,
scores and matches texts that a request brings (``encoding``).

No time is spent waiting for a batch to fill: while one batch is encoded the next one gathers, so an idle server answers
at once and a busy one works in full batches.
"""

import asyncio
from typing import Any, ClassVar

import numpy as np
from ray import serve

from cluster.accelerators import hide_accelerators
from cluster.artifact import Artifact
from pipelines.encoder import EncoderConfig, open_encoder
from serving import encoding
from serving.encoding import Encoded, EncoderFacts, Passages, Scored, Task, TokenMatch

MAX_BATCH = 32


class Encoder:
    """Holds the encoder that ``config`` names: a ready checkpoint, or one of the artifact ``student``."""

    ONGOING: ClassVar = 2 * MAX_BATCH  # one batch in work and one gathering; Serve's default of 5 would never fill one

    def __init__(self, config: EncoderConfig, student: Artifact | None, gpus: float = 0):
        if not gpus:
            hide_accelerators()  # Ray leaves the machine's visible to a replica that asked for none
        self.model: Any = open_encoder(config, {"student": student} if student else {})
        self.model.encode_queries(["warm up"])  # the first pass allocates and compiles; no user should wait for it

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.0)
    async def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Vectors of each query, float32 [tokens, dim] ([1, dim] of a dense student). Calls pass one text each."""
        return await asyncio.to_thread(self.model.encode_queries, texts)

    async def ping(self) -> bool:
        """Answer: this replica is up, its model is loaded."""
        return True

    async def describe(self) -> EncoderFacts:
        """Describe the encoder."""
        return await asyncio.to_thread(encoding.describe_encoder, self.model)

    async def encode_texts(self, texts: list[str], task: Task) -> Encoded:
        """Encode given texts; see ``serving.encoding``, as for the methods below."""
        return await asyncio.to_thread(encoding.encode_texts, self.model, texts, task)

    async def score_texts(self, query: str, texts: list[str], passages: Passages) -> Scored:
        """Score given texts against a query."""
        return await asyncio.to_thread(encoding.score_texts, self.model, query, texts, passages)

    async def match_tokens(self, query: str, texts: list[str], passages: Passages) -> list[list[TokenMatch]]:
        """Match the tokens of a query with those of given texts."""
        return await asyncio.to_thread(encoding.match_tokens, self.model, query, texts, passages)
