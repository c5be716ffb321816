"""What a gateway serves at a time: the parts of one fingerprint, and how they answer a search together.

    query → encoder → every shard → merge → the shards that found the results read their texts

A generation holds no model and no documents. It asks the parts of its own application alone, and every call carries its
fingerprint. An answer is whole, or the status is 503 and the error names the part that did not answer; a request may
allow answers without some shards, and then the answer says so. Each stage gets a share of the time that is left, so the
stage that is named is the one that was late. Cost, besides encoding and searching: three calls one after another
(encoder, shards, texts), 1 to 2 ms each.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ray import serve

from serving.admission import arrival
from serving.api import build_app
from serving.arrange import Found, Placed, arrange
from serving.backend import Answering
from serving.calls import collect, gather, gather_some
from serving.catalog import Catalog, CheckError
from serving.encoder_calls import ENCODER, EncoderCalls
from serving.messages import Limits, PartStatus, Result, SearchAnswer, SearchRequest, Translation
from serving.observe import Meters
from serving.reranker import RERANKER
from serving.reranker_calls import RerankerCalls

PING_S = 1.0  # how long a part may take to answer a health check before Serve is asked about it
REFRESH_S = 1.0  # between two health checks of all parts
# of the time that a request has left, what a stage may take: it leaves some to those that follow
ENCODE_SHARE, SEARCH_SHARE = 0.5, 0.9
BY_VALUE = 700_000  # characters of the texts of a shard: at most 4 bytes each, in a gRPC message of at most 4 MiB
CHECK_K = 3  # results of an example query
log = logging.getLogger("ray.serve")


class Hit(NamedTuple):
    """A document of an answer, with its translations where they are collapsed, and the shard that found each."""

    placed: Placed
    shards: Mapping[Found, str]


async def open_generation(name: str, meters: Meters) -> "Generation":
    """Ask the application ``name`` for its catalog. Raises RayServeException when there is none of this name."""
    handle = await asyncio.to_thread(serve.get_app_handle, name)  # it asks Serve's controller, and waits
    catalog = await asyncio.wait_for(handle.describe.remote(), Limits().timeout_s)
    names = [shard.name for shard in catalog.info.shards] + ([ENCODER] if catalog.has_encoder else [])
    names += [RERANKER] if catalog.info.rerank else []
    handles = {part: serve.get_deployment_handle(part, name, _check_exists=False) for part in names}
    return Generation(name, catalog, handles, meters)


class Generation(EncoderCalls, RerankerCalls):
    """The parts of one application, a ``Backend``; ``app`` is its HTTP interface, ``in_flight`` counts its requests."""

    def __init__(self, name: str, catalog: Catalog, handles: Mapping[str, Any], meters: Meters):
        self.name, self.catalog, self.meters = name, catalog, meters
        self.fingerprint, self.info, self.options = catalog.fingerprint, catalog.info, catalog.options
        # By value over gRPC: measured 2.8 times faster, with four shards, than calls that pass objects by reference.
        self.parts = {part: handle.options(_by_reference=False) for part, handle in handles.items()}
        # Long texts by reference: a gRPC message holds at most 4 MiB, and a thousand long documents are larger.
        self.text_shards = dict(handles)
        self.shard_lang = {shard.name: shard.lang for shard in self.info.shards}
        self.shard_docs = {shard.name: shard.docs for shard in self.info.shards}
        self.states: dict[str, PartStatus] = dict.fromkeys(self.parts, "ok")
        self.in_flight = 0
        self.words: Answering | None = None  # how an index of words beside this one answers a search
        self.app = build_app(self, self.info)

    async def answer(self, request: SearchRequest) -> SearchAnswer:
        """Answer a search: encode the query, search, merge and add the texts.

        Raises:
            UnavailableError: a part did not answer within its share of the time limit, or its replicas are gone.
        """
        start = time.perf_counter()
        end = arrival.get(start) + self.info.limits.timeout_s
        query: Any = request.query
        if self.catalog.has_encoder:
            call = self.parts[ENCODER].encode.remote(self.fingerprint, request.query)
            query = (await gather({ENCODER: call}, _share(end, ENCODE_SHARE)))[ENCODER]
        encoded = time.perf_counter()
        names = [n for n, lang in self.shard_lang.items() if not request.languages or lang in request.languages]
        best, missing = await self._search(query, request, names, _share(end, SEARCH_SHARE))
        searched = time.perf_counter()
        results, lost = await self._add_texts(best, request, end)
        done = time.perf_counter()
        durations = {"search": searched - encoded, "texts": done - searched, "total": done - start}
        if self.catalog.has_encoder:
            durations = {"encode": encoded - start, **durations}
        took_ms = {name: round(seconds * 1000, 2) for name, seconds in durations.items()}
        self.meters.count_search(took_ms, {self.shard_lang[name] for name in names}, len(results))
        missing = sorted({*missing, *lost})
        coverage = self._cover(names, missing)
        return SearchAnswer(query=request.query, results=results, took_ms=took_ms, coverage=coverage, missing=missing)

    def _cover(self, names: Iterable[str], missing: list[str]) -> float:
        """The share of the documents of the shards ``names`` that are not in those of ``missing``."""
        docs = sum(self.shard_docs[name] for name in names)
        return 1 - sum(self.shard_docs[name] for name in missing) / docs if docs else 1.0

    async def _search(
        self, query: Any, request: SearchRequest, names: list[str], deadline: float
    ) -> tuple[list[Hit], list[str]]:
        """Search the shards ``names``. Returns the documents of the page that is asked for, and the shards missing."""
        from pipelines.search import merge

        depth = request.offset + request.k
        options = self.options.model_copy(update={"k": depth} | ({"probes": request.probes} if request.probes else {}))
        calls = {n: self.parts[n].search.remote(self.fingerprint, query, options) for n in names}
        rankings, missing = await gather_some(calls, deadline, request.allow_partial)
        by_lang, shard_of = defaultdict(list), dict[tuple[str, str], str]()
        for name, ranking in rankings.items():
            by_lang[self.shard_lang[name]].append(ranking)
            shard_of |= {(self.shard_lang[name], doc_id): name for doc_id, _ in ranking}
        page = arrange({lang: merge(parts, depth) for lang, parts in by_lang.items()}, request)
        hits = [Hit(one, {hit: shard_of[hit.lang, hit.doc_id] for hit in (one.best, *one.others)}) for one in page]
        return hits, missing

    async def _add_texts(
        self, best: list[Hit], request: SearchRequest, deadline: float
    ) -> tuple[list[Result], list[str]]:
        """Add title, text and rank to the hits. Returns the results, and the shards that did not answer.

        Each document is read by the shard that found it, so that a shard's memory-mapped pages hold few texts of other
        shards.
        """
        ids = defaultdict(list)
        for found, shard in (item for hit in best for item in hit.shards.items()):
            ids[shard].append(found.doc_id)
        texts, missing = await self._read_texts(ids, deadline, request.allow_partial)
        rows = {(n, doc_id): row for n, found in texts.items() for doc_id, row in zip(ids[n], found, strict=True)}
        read = [hit for hit in best if hit.shards[hit.placed.best] in texts]
        first = request.offset + 1
        return [_build_result(rank, hit, rows, request.collapse) for rank, hit in enumerate(read, first)], missing

    async def _read_texts(
        self, ids: Mapping[str, list[str]], deadline: float, allow_partial: bool
    ) -> tuple[dict[str, Any], list[str]]:
        """Read titles and texts of documents by shard: by value, and where they are too long for that by reference."""
        calls = {name: self.parts[name].read_texts.remote(self.fingerprint, i, BY_VALUE) for name, i in ids.items()}
        texts, missing = await gather_some(calls, deadline, allow_partial)
        if long := [name for name, found in texts.items() if found is None]:
            calls = {name: self.text_shards[name].read_texts.remote(self.fingerprint, ids[name]) for name in long}
            found, late = await gather_some(calls, deadline, allow_partial)
            texts = {name: of for name, of in texts.items() if of is not None} | found
            missing = [*missing, *late]
        return texts, missing

    async def check_parts(self) -> dict[str, PartStatus]:
        """Return the status of every part as it was at the last health check, at most about ``REFRESH_S`` ago."""
        return dict(self.states)

    async def check_examples(self) -> None:
        """Ping every part and answer the recipe's example queries.

        Raises:
            UnavailableError: a part did not answer.
            CheckError: there are documents, and no example query finds any.
        """
        calls = {name: handle.ping.remote(self.fingerprint) for name, handle in self.parts.items()}
        await gather(calls, time.perf_counter() + self.info.limits.timeout_s)
        found = 0
        for example in self.catalog.examples:
            query = example[: self.info.limits.max_query_chars]
            found += len((await self.answer(SearchRequest(query=query, k=CHECK_K))).results)
        if self.catalog.examples and self.info.documents and not found:
            raise CheckError(f"none of the {len(self.catalog.examples)} example queries finds a document")

    async def refresh(self) -> None:
        """Check the parts again and again, until cancelled, for ``check_parts``."""
        while True:
            try:
                self.states = await self._ping()
            except Exception as error:  # a check that fails tells nothing of the parts; the next one may
                log.warning("the health check of %s failed: %s", self.name, error)
            await asyncio.sleep(REFRESH_S)

    async def _ping(self) -> dict[str, PartStatus]:
        """Ping every part, all at once, and ask Serve about those that do not answer in PING_S.

        A ping waits behind searches, so a late answer alone proves nothing: a part with a running replica is "busy",
        one without is "gone".
        """
        calls = {name: handle.ping.remote(self.fingerprint) for name, handle in self.parts.items()}
        answers = await collect(calls, time.perf_counter() + PING_S)
        running = await asyncio.to_thread(_list_running, self.name) if answers.late else set()
        states: dict[str, PartStatus] = dict.fromkeys(self.parts, "ok")
        states |= {name: "busy" if name in running else "gone" for name in answers.late}
        return states | dict.fromkeys(answers.gone, "gone")


def _build_result(rank: int, hit: Hit, rows: Mapping[tuple[str, str], tuple[str, str]], is_collapsed: bool) -> Result:
    """The result of a hit. ``rows`` hold title and text by shard and document."""

    def read(found: Found) -> dict[str, Any]:
        title, text = rows[hit.shards[found], found.doc_id]
        return {"lang": found.lang, "score": found.score, "title": title, "text": text}

    others = [found for found in hit.placed.others if (hit.shards[found], found.doc_id) in rows]
    translations = [Translation(**read(found)) for found in others] if is_collapsed else None
    return Result(rank=rank, doc_id=hit.placed.best.doc_id, **read(hit.placed.best), translations=translations)


def _list_running(app: str) -> set[str]:
    """List the deployments of an application that have a running replica, according to Serve's controller."""
    found = serve.status().applications.get(app)
    return {
        name
        for name, deployment in (found.deployments if found else {}).items()
        if any(state == "RUNNING" and count for state, count in deployment.replica_states.items())
    }


def _share(end: float, share: float) -> float:
    """The time of ``perf_counter`` until which a stage may take that begins now and gets a share of what is left."""
    now = time.perf_counter()
    return now + max(end - now, 0) * share
