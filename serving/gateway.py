"""The gateway deployment: receives HTTP requests, encodes the query, searches all shards, merges, adds the texts.

It holds no model and no documents. There are no partial answers: if a shard does not answer in time, the status is 503
and the error names the shard. The text of a result is read by the shard that found it. Cost, besides encoding and
searching: three calls one after another (encoder, shards, texts), 1 to 2 ms each.
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

from serving.access import Access
from serving.api import UnavailableError, build_app
from serving.arrange import Found, Placed, arrange
from serving.encoder_calls import EncoderCalls
from serving.messages import Info, PartStatus, Result, SearchAnswer, SearchRequest, Translation

PING_S = 0.5  # Kubernetes gives a probe one second
log = logging.getLogger("ray.serve")


class Hit(NamedTuple):
    """A document of an answer, with its translations where they are collapsed, and the shard that found each."""

    placed: Placed
    shards: Mapping[Found, str]


@serve.ingress()
class Gateway(EncoderCalls):
    """The ingress of the application, a ``Backend``.

    ``options`` are the recipe's SearchOptions; ``shards`` maps names to handles; ``encoder`` is None for an index of
    words.
    """

    ONGOING: ClassVar = 256  # requests at a time per replica, which spends their time waiting for other deployments

    def __init__(
        self,
        info: Info,
        options: Any,
        shards: Mapping[str, DeploymentHandle],
        encoder: DeploymentHandle | None,
        access: Access | None = None,
    ):
        self.info = info
        self.access = access
        self.options = options
        # By value over gRPC: measured 2.8 times faster, with four shards, than calls that pass objects by reference.
        self.shards = {name: handle.options(_by_reference=False) for name, handle in shards.items()}
        self.encoder = encoder.options(_by_reference=False) if encoder else None
        # Texts by reference: a gRPC message holds at most 4 MiB, and a thousand long documents are larger.
        self.text_shards = dict(shards)
        self.shard_lang = {shard.name: shard.lang for shard in info.shards}

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_app(self, self.info, self.access)

    async def answer(self, request: SearchRequest) -> SearchAnswer:
        """Answer a search: encode the query, search, merge and add the texts.

        Raises:
            UnavailableError: a part did not answer within the time limit, or its replicas are gone.
        """
        start = time.perf_counter()
        deadline = start + self.info.limits.timeout_s
        query: Any = request.query
        if self.encoder:
            query = (await _gather({"encoder": self.encoder.encode.remote(request.query)}, deadline))["encoder"]
        encoded = time.perf_counter()
        best = await self._search(query, request, deadline)
        searched = time.perf_counter()
        results = await self._add_texts(best, request, deadline)
        end = time.perf_counter()
        durations = {"search": searched - encoded, "texts": end - searched, "total": end - start}
        if self.encoder:
            durations = {"encode": encoded - start, **durations}
        took_ms = {name: round(seconds * 1000, 2) for name, seconds in durations.items()}
        return SearchAnswer(query=request.query, results=results, took_ms=took_ms)

    async def _search(self, query: Any, request: SearchRequest, deadline: float) -> list[Hit]:
        """Search all shards of the requested languages. Returns the documents of the page that is asked for."""
        from pipelines.search import merge

        depth = request.offset + request.k
        options = self.options.model_copy(update={"k": depth} | ({"probes": request.probes} if request.probes else {}))
        names = [n for n, lang in self.shard_lang.items() if not request.languages or lang in request.languages]
        rankings = await _gather({n: self.shards[n].search.remote(query, options) for n in names}, deadline)
        by_lang, shard_of = defaultdict(list), dict[tuple[str, str], str]()
        for name, ranking in rankings.items():
            by_lang[self.shard_lang[name]].append(ranking)
            shard_of |= {(self.shard_lang[name], doc_id): name for doc_id, _ in ranking}
        page = arrange({lang: merge(parts, depth) for lang, parts in by_lang.items()}, request)
        return [Hit(one, {hit: shard_of[hit.lang, hit.doc_id] for hit in (one.best, *one.others)}) for one in page]

    async def _add_texts(self, best: list[Hit], request: SearchRequest, deadline: float) -> list[Result]:
        """Add title, text and rank to the hits. Each document is read by the shard that found it, so that a shard's
        memory-mapped pages hold few texts of other shards."""
        ids = defaultdict(list)
        for found, shard in (item for hit in best for item in hit.shards.items()):
            ids[shard].append(found.doc_id)
        calls = {name: self.text_shards[name].read_texts.remote(doc_ids) for name, doc_ids in ids.items()}
        texts = await _gather(calls, deadline)
        rows = {(n, doc_id): row for n, found in texts.items() for doc_id, row in zip(ids[n], found, strict=True)}
        return [_build_result(rank, hit, rows, request.collapse) for rank, hit in enumerate(best, request.offset + 1)]

    async def check_parts(self) -> dict[str, PartStatus]:
        """Ping the encoder and every shard, all at once, and ask Serve about those that do not answer in PING_S.

        A ping waits behind searches, so a late answer alone proves nothing: a part with a running replica is "busy",
        one without is "gone".
        """
        handles = self.shards | ({"encoder": self.encoder} if self.encoder else {})
        states: dict[str, PartStatus] = dict.fromkeys(handles, "ok")
        try:
            await _gather({n: handle.ping.remote() for n, handle in handles.items()}, time.perf_counter() + PING_S)
        except UnavailableError as error:
            running = await asyncio.to_thread(_list_running) if error.late else set()
            states |= {name: "busy" if name in running else "gone" for name in error.late}
            states |= dict.fromkeys(error.gone, "gone")
        return states


def _build_result(rank: int, hit: Hit, rows: Mapping[tuple[str, str], tuple[str, str]], is_collapsed: bool) -> Result:
    """The result of a hit. ``rows`` hold title and text by shard and document."""

    def read(found: Found) -> dict[str, Any]:
        title, text = rows[hit.shards[found], found.doc_id]
        return {"lang": found.lang, "score": found.score, "title": title, "text": text}

    translations = [Translation(**read(found)) for found in hit.placed.others] if is_collapsed else None
    return Result(rank=rank, doc_id=hit.placed.best.doc_id, **read(hit.placed.best), translations=translations)


def _list_running() -> set[str]:
    """List the deployments of this application that have a running replica, according to Serve's controller."""
    deployments = serve.status().applications[serve.get_replica_context().app_name].deployments
    return {
        name
        for name, deployment in deployments.items()
        if any(state == "RUNNING" and count for state, count in deployment.replica_states.items())
    }


async def _gather(calls: Mapping[str, Any], deadline: float) -> dict[str, Any]:
    """Await calls to other deployments together until ``deadline``, a time of ``perf_counter`` in seconds.

    Returns the results by name. Calls that are late are cancelled.

    Raises:
        UnavailableError: deployments did not answer in time, or their replicas are gone.
        RayTaskError: the code of a deployment raised; that is a bug, and becomes status 500.
    """
    tasks = {name: asyncio.ensure_future(_await(call)) for name, call in calls.items()}
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


async def _await(call: Any) -> Any:
    return await call
