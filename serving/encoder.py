"""The encoder deployment: texts of queries in, token vectors out, several queries per forward pass. It also encodes,
scores and matches texts that a request brings (``encoding``), and holds the shards where one replica holds them all: a
search then is one call to one process.

No time is spent waiting for a batch to fill: while one batch is encoded the next one gathers, so an idle server answers
at once and a busy one works in full batches.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
from ray import serve

from cluster.accelerators import hide_accelerators
from pipelines.encoder import open_encoder
from serving import encoding
from serving.catalog import ENCODER, ForeignError, Part
from serving.encoding import Encoded, EncoderFacts, Passages, Scored, Task, TokenMatch
from serving.messages import SearchRequest
from serving.opened import Name, OpenShards, PartAnswer, Text, limit_arenas
from serving.served import Layout
from serving.tracing import trace_call, trace_stage

MAX_BATCH = 32


class Encoder(Part):
    """Holds the encoder of what is served: a ready checkpoint, or a trained student; and the shards that the layout
    gives to it. It is the root of its application: ``others`` are the handles of the groups of shards."""

    ONGOING: ClassVar = 2 * MAX_BATCH  # one batch in work and one gathering; Serve's default of 5 would never fill one

    def __init__(self, layout: Layout, gpus: float = 0, others: Sequence[Any] = ()):
        super().__init__(layout, ENCODER, others)
        if not gpus:
            hide_accelerators()  # Ray leaves the machine's visible to a replica that asked for none
        limit_arenas()
        served = layout.served
        if served.encoder is None:
            raise ValueError(f"system {served.system} of recipe {served.recipe} has no encoder to open")
        self.model: Any = open_encoder(served.encoder, {"student": served.student} if served.student else {})
        # One thread: a tokenizer keeps truncation and padding as state, which a second thread would change between the
        # moment when the first sets it and the moment when it is used.
        self.thread = ThreadPoolExecutor(1, "encode")
        self.model.encode_queries(["warm up"])  # the first pass allocates and compiles; no user should wait for it
        self.shards = OpenShards(layout, ENCODER) if layout.is_shared else None

    @trace_call
    async def encode(self, edition: str, text: str) -> np.ndarray:
        """Vectors of a query, float32 [tokens, dim] ([1, dim] of a dense student)."""
        self.read_number(edition)
        return await self.encode_batch(text)

    @trace_call
    async def search(self, edition: str, text: str, request: SearchRequest, with_texts: bool) -> PartAnswer:
        """Encode a query and search the shards for it."""
        start, shards = time.perf_counter(), self._get_shards()
        with trace_stage("encode"):
            query = await self.encode(edition, text)
        encode_s = time.perf_counter() - start
        found = await shards.search(self.read_number(edition), query, request, with_texts)
        return found._replace(encode_s=encode_s)

    @trace_call
    async def read_texts(self, edition: str, names: list[Name]) -> dict[Name, Text]:
        """Read the title and the text of each document."""
        return await self._get_shards().read_texts(self.read_number(edition), names)

    async def ping(self, edition: str) -> bool:
        """Open the edition where it is not open yet. Returns True."""
        number = self.read_number(edition)
        if self.shards:
            await asyncio.to_thread(self.shards.open, number)
        return True

    def _get_shards(self) -> OpenShards:
        if self.shards is None:
            raise ForeignError("the encoder was asked to search and holds no shards: its application has them apart")
        return self.shards

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.0)
    async def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """Vectors of each query. Calls pass one text each, and Serve gathers them."""
        return await self._compute(self.model.encode_queries, texts)

    @trace_call
    async def describe_encoder(self, edition: str) -> EncoderFacts:
        """Describe the encoder."""
        return await self._run(edition, encoding.describe_encoder)

    @trace_call
    async def encode_texts(self, edition: str, texts: list[str], task: Task) -> Encoded:
        """Encode given texts; see ``serving.encoding``, as for the methods below."""
        return await self._run(edition, encoding.encode_texts, texts, task)

    @trace_call
    async def score_texts(self, edition: str, query: str, texts: list[str], passages: Passages) -> Scored:
        """Score given texts against a query."""
        return await self._run(edition, encoding.score_texts, query, texts, passages)

    @trace_call
    async def match_tokens(
        self, edition: str, query: str, texts: list[str], passages: Passages
    ) -> list[list[TokenMatch]]:
        """Match the tokens of a query with those of given texts."""
        return await self._run(edition, encoding.match_tokens, query, texts, passages)

    async def _run(self, edition: str, function: Callable[..., Any], *arguments: Any) -> Any:
        self.read_number(edition)
        return await self._compute(function, self.model, *arguments)

    async def _compute(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that uses the model. A call that is cancelled keeps the thread until it ends."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, function, *arguments)
