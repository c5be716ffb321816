"""The gateway deployment: takes HTTP, encodes the query, asks every shard at once, merges, fetches the winners' texts.

It holds no model and no documents. An answer is whole or it is an error: where a shard does not answer in time, the
status is 503 and says which one. Cost, besides encoding and searching: three calls one after another (encoder, shards,
texts), 1 to 2 ms each.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, ClassVar

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from serving import api

PING_S = 2.0  # a part that takes longer to say that it is there is not
log = logging.getLogger("ray.serve")


@serve.ingress()
class Gateway:
    """The ingress. ``shards`` are handles by name; ``encoder`` is None where the index is searched with words."""

    ONGOING: ClassVar = 256  # requests in the air per replica: it mostly waits

    def __init__(
        self,
        info: api.Info,
        options: Any,
        shards: Mapping[str, DeploymentHandle],
        encoder: DeploymentHandle | None,
    ):
        self.info = info
        self.options = options
        # by value over gRPC: 2.8 times faster at a fan-out of four than an actor call that passes objects by reference
        self.shards = {name: handle.options(_by_reference=False) for name, handle in shards.items()}
        self.encoder = encoder.options(_by_reference=False) if encoder else None
        # texts go by reference: a gRPC message ends at 4 MiB, and a thousand long documents are more
        self.texts = dict(shards)
        self.shard_lang = {shard.name: shard.lang for shard in info.shards}

    def __serve_build_asgi_app__(self) -> FastAPI:
        return api.build(self, self.info)

    async def answer(self, request: api.SearchRequest) -> api.SearchAnswer:
        """Encode, search, merge, fetch texts; all within the time limit. Raises UnavailableError."""
        start = time.perf_counter()
        deadline = start + self.info.limits.timeout_s
        query: Any = request.query
        if self.encoder:
            query = (await _gather({"encoder": self.encoder.encode.remote(request.query)}, deadline))["encoder"]
        encoded = time.perf_counter()
        best = await self._search(query, request, deadline)
        searched = time.perf_counter()
        results = await self._results(best, deadline)
        end = time.perf_counter()
        spans = {"search": searched - encoded, "texts": end - searched, "total": end - start}
        if self.encoder:
            spans = {"encode": encoded - start, **spans}
        took = {name: round(seconds * 1000, 2) for name, seconds in spans.items()}
        return api.SearchAnswer(query=request.query, results=results, took_ms=took)

    async def _search(self, query: Any, request: api.SearchRequest, deadline: float) -> list[tuple[str, str, float]]:
        """The best ``k`` of all shards of the languages asked for, as (lang, doc_id, score)."""
        from pipelines.search import merge, pool

        options = self.options.model_copy(
            update={"k": request.k} | ({"probes": request.probes} if request.probes else {})
        )
        wanted = [n for n, lang in self.shard_lang.items() if not request.languages or lang in request.languages]
        found = await _gather({n: self.shards[n].search.remote(query, options) for n in wanted}, deadline)
        by_lang = defaultdict(list)
        for name, ranking in found.items():
            by_lang[self.shard_lang[name]].append(ranking)
        best = []
        for key, score in pool({lang: merge(rankings, request.k) for lang, rankings in by_lang.items()}, request.k):
            lang, _, doc_id = key.partition(":")
            best.append((lang, doc_id, float(score)))
        return best

    async def _results(self, best: list[tuple[str, str, float]], deadline: float) -> list[api.Result]:
        """Add title and text; any shard of a document's language has them."""
        ids = defaultdict(list)
        for lang, doc_id, _ in best:
            ids[lang].append(doc_id)
        of_lang = {lang: name for name, lang in self.shard_lang.items()}
        calls = {of_lang[lang]: self.texts[of_lang[lang]].texts.remote(wanted) for lang, wanted in ids.items()}
        found = await _gather(calls, deadline)
        shown = {
            (lang, doc_id): text
            for lang, w in ids.items()
            for doc_id, text in zip(w, found[of_lang[lang]], strict=True)
        }
        return [
            api.Result(
                rank=rank,
                doc_id=doc_id,
                lang=lang,
                score=score,
                title=shown[lang, doc_id][0],
                text=shown[lang, doc_id][1],
            )
            for rank, (lang, doc_id, score) in enumerate(best, 1)
        ]

    async def parts(self) -> dict[str, bool]:
        """Ask the encoder and every shard for a sign of life, all at once."""
        handles = self.shards | ({"encoder": self.encoder} if self.encoder else {})
        try:
            await _gather({n: handle.ping.remote() for n, handle in handles.items()}, time.perf_counter() + PING_S)
        except api.UnavailableError as error:
            return {name: name not in error.missing for name in handles}
        return dict.fromkeys(handles, True)


async def _gather(calls: Mapping[str, Any], deadline: float) -> dict[str, Any]:
    """Await calls to other deployments together until ``deadline`` (of ``perf_counter``).

    Raises:
        UnavailableError: some did not answer in time, or their replicas are gone.
        RayTaskError: the code of one raised; that is a bug, and a 500.
    """
    tasks = {name: asyncio.ensure_future(_value(call)) for name, call in calls.items()}
    if tasks:
        await asyncio.wait(tasks.values(), timeout=max(deadline - time.perf_counter(), 0))
    missing = {}
    for name, task in tasks.items():
        if not task.done():
            task.cancel()
            calls[name].cancel()
            missing[name] = "late"
        elif isinstance(error := task.exception(), RayTaskError):
            raise error
        elif isinstance(error, (RayError, RayServeException)):
            missing[name] = f"{type(error).__name__}: {error}"
        elif error:
            raise error
    if missing:
        log.warning("no answer: %s", missing)
        raise api.UnavailableError(sorted(missing))
    return {name: task.result() for name, task in tasks.items()}


async def _value(call: Any) -> Any:
    return await call
