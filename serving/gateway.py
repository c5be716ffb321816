"""The gateway deployment: takes HTTP, encodes the query, asks every shard at once, merges, fetches the winners' texts.

It holds no model and no documents. An answer is whole or it is an error: where a shard does not answer in time, the
status is 503 and says which one. Texts come from the shards that found them. Cost, besides encoding and searching:
three calls one after another (encoder, shards, texts), 1 to 2 ms each.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from serving.api import UnavailableError, build
from serving.messages import Info, Part, Result, SearchAnswer, SearchRequest

PING_S = 0.5  # Kubernetes gives a probe one second
log = logging.getLogger("ray.serve")


class Hit(NamedTuple):
    """A document found, and the shard that found it."""

    shard: str
    doc_id: str
    score: float


@serve.ingress()
class Gateway:
    """The ingress. ``shards`` are handles by name; ``encoder`` is None where the index is searched with words."""

    ONGOING: ClassVar = 256  # requests in the air per replica: it mostly waits

    def __init__(
        self,
        info: Info,
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
        return build(self, self.info)

    async def answer(self, request: SearchRequest) -> SearchAnswer:
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
        return SearchAnswer(query=request.query, results=results, took_ms=took)

    async def _search(self, query: Any, request: SearchRequest, deadline: float) -> list[Hit]:
        """The best ``k`` of all shards of the languages asked for."""
        from pipelines.search import merge, pool

        options = self.options.model_copy(
            update={"k": request.k} | ({"probes": request.probes} if request.probes else {})
        )
        wanted = [n for n, lang in self.shard_lang.items() if not request.languages or lang in request.languages]
        found = await _gather({n: self.shards[n].search.remote(query, options) for n in wanted}, deadline)
        by_lang, finder = defaultdict(list), dict[str, str]()
        for name, ranking in found.items():
            by_lang[self.shard_lang[name]].append(ranking)
            finder |= {f"{self.shard_lang[name]}:{doc_id}": name for doc_id, _ in ranking}
        best = pool({lang: merge(rankings, request.k) for lang, rankings in by_lang.items()}, request.k)
        return [Hit(finder[key], key.partition(":")[2], float(score)) for key, score in best]

    async def _results(self, best: list[Hit], deadline: float) -> list[Result]:
        """Add title and text, which the shard that found a document reads: its pages hold few others'."""
        ids = defaultdict(list)
        for hit in best:
            ids[hit.shard].append(hit.doc_id)
        found = await _gather({name: self.texts[name].texts.remote(of) for name, of in ids.items()}, deadline)
        shown = {(name, doc_id): text for name, of in ids.items() for doc_id, text in zip(of, found[name], strict=True)}
        return [
            Result(
                rank=rank,
                doc_id=hit.doc_id,
                lang=self.shard_lang[hit.shard],
                score=hit.score,
                title=shown[hit.shard, hit.doc_id][0],
                text=shown[hit.shard, hit.doc_id][1],
            )
            for rank, hit in enumerate(best, 1)
        ]

    async def parts(self) -> dict[str, Part]:
        """Ask the encoder and every shard for a sign of life, all at once; and Serve about those that give none.

        A sign of life waits behind searches, so one that is late says little: a part with a running replica is busy.
        """
        handles = self.shards | ({"encoder": self.encoder} if self.encoder else {})
        states: dict[str, Part] = dict.fromkeys(handles, "ok")
        try:
            await _gather({n: handle.ping.remote() for n, handle in handles.items()}, time.perf_counter() + PING_S)
        except UnavailableError as error:
            runs = await asyncio.to_thread(_running) if error.late else set()
            states |= {name: "busy" if name in runs else "gone" for name in error.late}
            states |= dict.fromkeys(error.gone, "gone")
        return states


def _running() -> set[str]:
    """The deployments of this application that have a running replica, as Serve's controller knows them."""
    deployments = serve.status().applications[serve.get_replica_context().app_name].deployments
    return {
        name
        for name, deployment in deployments.items()
        if any(state == "RUNNING" and count for state, count in deployment.replica_states.items())
    }


async def _gather(calls: Mapping[str, Any], deadline: float) -> dict[str, Any]:
    """Await calls to other deployments together until ``deadline`` (of ``perf_counter``).

    Raises:
        UnavailableError: some did not answer in time, or their replicas are gone.
        RayTaskError: the code of one raised; that is a bug, and a 500.
    """
    tasks = {name: asyncio.ensure_future(_value(call)) for name, call in calls.items()}
    if tasks:
        await asyncio.wait(tasks.values(), timeout=max(deadline - time.perf_counter(), 0))
    gone, late = [], []
    for name, task in tasks.items():
        if not task.done():
            task.cancel()
            calls[name].cancel()
            late.append(name)
        elif isinstance(error := task.exception(), RayTaskError):
            raise error
        elif isinstance(error, (RayError, RayServeException)):
            log.warning("%s is gone: %s", name, error)
            gone.append(name)
        elif error:
            raise error
    if gone or late:
        raise UnavailableError(sorted(gone), sorted(late))
    return {name: task.result() for name, task in tasks.items()}


async def _value(call: Any) -> Any:
    return await call
