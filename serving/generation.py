"""What a gateway serves at a time: one edition of the parts of one application, and how they answer a search together.

    query → encoder → every group of shards → merge → texts that have not come with what was found
    query → encoder that holds the shards

A generation holds no model and no documents. It asks the parts of its own application alone, and every call carries its
edition: the fingerprint, and the list of the index's segments. An answer is whole, or the status is 503 and the error
names the part that did not answer; a request may allow answers without some shards, and then the answer says so. Each
stage gets a share of the time that is left, so the stage that is named is the one that was late. Cost, besides encoding
and searching: one call, or two one after another where encoder and shards are apart, 1 to 2 ms each.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ray import serve

from serving.admission import arrival
from serving.api import build_app
from serving.arrange import Hit, Placed, arrange
from serving.backend import Answering
from serving.calls import collect, gather, gather_some
from serving.catalog import ENCODER, RERANKER, Catalog, CheckError
from serving.encoder_calls import EncoderCalls
from serving.messages import Limits, PartStatus, Result, SearchAnswer, SearchRequest, ShardInfo, Translation
from serving.observe import Meters
from serving.reranker_calls import RerankerCalls
from serving.tracing import carry, trace_stage

if TYPE_CHECKING:
    from serving.opened import Name, PartAnswer, Text

PING_S = 1.0  # how long a part may take to answer a health check before Serve is asked about it
REFRESH_S = 1.0  # between two health checks of all parts
# of the time that a request has left, what a stage may take: it leaves some to those that follow
ENCODE_SHARE, SEARCH_SHARE = 0.5, 0.9
MANY = 10_000  # results: an answer of more goes by reference, since a gRPC message holds at most 4 MiB
FEW = 20  # texts that a part sends with what it found, where others were asked too
OPEN_S = 600.0  # how long replicas may take to open an edition: a node may have to copy what was added
CHECK_K = 3  # results of an example query
log = logging.getLogger("ray.serve")


async def open_generation(name: str, meters: Meters, former: "Generation | None" = None) -> "Generation":
    """Open the newest edition of the application ``name``. Where ``former`` is an older edition of it, its handles are
    used again: a handle that was ever called keeps background tasks until the process ends.

    Raises RayServeException when there is no application of this name.
    """
    known = former.parts if former and former.name == name else {}
    asked = next(iter(known.values()), None) or await asyncio.to_thread(serve.get_app_handle, name)  # which waits
    catalog = await _describe(asked)
    names = {shard.part for shard in catalog.info.shards} | ({ENCODER} if catalog.has_encoder else set())
    names |= {RERANKER} if catalog.info.rerank else set()
    # By value over gRPC: measured 2.8 times faster, with four shards, than calls that pass objects by reference.
    parts = {
        part: known.get(part)
        or serve.get_deployment_handle(part, name, _check_exists=False).options(_by_reference=False)
        for part in sorted(names)
    }
    return Generation(name, catalog, parts, meters)


async def _describe(handle: Any) -> Catalog:
    catalog: Catalog = await asyncio.wait_for(handle.describe.remote(), Limits().timeout_s)
    return catalog


class Generation(EncoderCalls, RerankerCalls):
    """An edition of an application, a ``Backend``; ``app`` is its HTTP interface, ``in_flight`` counts its requests."""

    def __init__(self, name: str, catalog: Catalog, parts: Mapping[str, Any], meters: Meters):
        self.name, self.catalog, self.meters = name, catalog, meters
        self.edition, self.info = catalog.edition, catalog.info
        self.parts = dict(parts)
        self.is_shared = any(shard.part == ENCODER for shard in self.info.shards)
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
        asked = [shard for shard in self.info.shards if not request.languages or shard.lang in request.languages]
        query: Any = request.query
        if self.catalog.has_encoder and not self.is_shared:
            with trace_stage("encode", self.edition):
                call = self.parts[ENCODER].encode.remote(self.edition, request.query, **carry())
                query = (await gather({ENCODER: call}, _share(end, ENCODE_SHARE)))[ENCODER]
        encoded = time.perf_counter()
        with trace_stage("search", self.edition):
            found, missing = await self._search(query, request, {shard.part for shard in asked}, end)
        encoded += sum(one.encode_s for one in found.values())
        searched = time.perf_counter()
        with trace_stage("texts", self.edition):
            results, lost = await self._add_texts(found, request, end)
        done = time.perf_counter()
        durations = {"search": searched - encoded, "texts": done - searched, "total": done - start}
        if self.catalog.has_encoder:
            durations = {"encode": encoded - start, **durations}
        took_ms = {name: round(seconds * 1000, 2) for name, seconds in durations.items()}
        self.meters.count_search(took_ms, {shard.lang for shard in asked}, len(results))
        missing = sorted({*missing, *lost})
        coverage = _cover(asked, missing)
        return SearchAnswer(query=request.query, results=results, took_ms=took_ms, coverage=coverage, missing=missing)

    async def _search(
        self, query: Any, request: SearchRequest, names: set[str], end: float
    ) -> tuple[dict[str, "PartAnswer"], list[str]]:
        """Search the parts ``names``. Returns what each found, and those that did not answer.

        A part that is asked alone returns the page with its texts. Of several, each returns the texts of its own best,
        if these are few: most of them are not needed, and a second call to those that are costs more.
        """
        depth = request.offset + request.k
        is_alone, with_texts = len(names) == 1, len(names) == 1 or depth <= FEW
        asked = request if is_alone else request.model_copy(update={"offset": 0, "k": depth})
        is_long = depth * len(request.languages or self.info.languages) > MANY
        handles = {n: self.parts[n].options(_by_reference=True) if is_long else self.parts[n] for n in names}
        calls = {n: handles[n].search.remote(self.edition, query, asked, with_texts, **carry()) for n in names}
        return await gather_some(calls, _share(end, SEARCH_SHARE), request.allow_partial)

    async def _add_texts(
        self, found: Mapping[str, "PartAnswer"], request: SearchRequest, deadline: float
    ) -> tuple[list[Result], list[str]]:
        """Arrange the page and add title, text and rank. Returns the results, and the parts that did not answer.

        A document whose text has not come with it is read by the part that found it, so that the memory-mapped pages
        of a part hold few texts of others.
        """
        from pipelines.search import merge

        depth = request.offset + request.k
        by_lang, held = defaultdict(list), dict["Name", str]()
        texts: dict[Name, Text] = {}
        for part, one in found.items():
            texts |= one.texts
            for lang, ranking in one.rankings.items():
                by_lang[lang].append(ranking)
                held |= {(lang, doc_id): part for doc_id, _ in ranking}
        page = arrange({lang: merge(rankings, depth) for lang, rankings in by_lang.items()}, request)
        names = [(hit.lang, hit.doc_id) for placed in page for hit in (placed.best, *placed.others)]
        left = defaultdict(list)
        for name in names:
            if name not in texts:
                left[held[name]].append(name)
        # By reference: a gRPC message holds at most 4 MiB, and a thousand long documents are larger.
        by_reference = {part: self.parts[part].options(_by_reference=True) for part in left}
        calls = {
            part: handle.read_texts.remote(self.edition, left[part], **carry()) for part, handle in by_reference.items()
        }
        read, missing = await gather_some(calls, deadline, request.allow_partial) if calls else ({}, [])
        for some in read.values():
            texts |= some
        shown = [placed for placed in page if (placed.best.lang, placed.best.doc_id) in texts]
        first = request.offset + 1
        return [_build_result(rank, one, texts, request.collapse) for rank, one in enumerate(shown, first)], missing

    async def find_newest(self) -> str:
        """Ask a part for the newest edition of this application."""
        return (await _describe(next(iter(self.parts.values())))).edition

    async def check_parts(self) -> dict[str, PartStatus]:
        """Return the status of every part as it was at the last health check, at most about ``REFRESH_S`` ago."""
        return dict(self.states)

    async def check_examples(self) -> None:
        """Let every replica open this edition, and answer the recipe's example queries.

        Raises:
            UnavailableError: a part did not answer.
            CheckError: there are documents, and no example query finds any.
        """
        opened = [handle.broadcast("ping", self.edition).results_async() for handle in self.parts.values()]
        await asyncio.wait_for(asyncio.gather(*opened), OPEN_S)
        found = 0
        for example in self.info.examples:
            query = example[: self.info.limits.max_query_chars]
            found += len((await self.answer(SearchRequest(query=query, k=CHECK_K))).results)
        if self.info.examples and self.info.documents and not found:
            raise CheckError(f"none of the {len(self.info.examples)} example queries finds a document")

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
        calls = {name: handle.ping.remote(self.edition) for name, handle in self.parts.items()}
        answers = await collect(calls, time.perf_counter() + PING_S)
        running = await asyncio.to_thread(_list_running, self.name) if answers.late else set()
        states: dict[str, PartStatus] = dict.fromkeys(self.parts, "ok")
        states |= {name: "busy" if name in running else "gone" for name in answers.late}
        return states | dict.fromkeys(answers.gone, "gone")


def _cover(asked: Sequence[ShardInfo], missing: list[str]) -> float:
    """The share of the documents of the shards ``asked`` that are not in parts of ``missing``."""
    docs = sum(shard.docs for shard in asked)
    return 1 - sum(shard.docs for shard in asked if shard.part in missing) / docs if docs else 1.0


def _build_result(rank: int, placed: Placed, texts: Mapping["Name", "Text"], is_collapsed: bool) -> Result:
    """The result of a document."""

    def read(found: Hit) -> dict[str, Any]:
        title, text = texts[found.lang, found.doc_id]
        return {"lang": found.lang, "score": found.score, "title": title, "text": text}

    others = [found for found in placed.others if (found.lang, found.doc_id) in texts]
    translations = [Translation(**read(found)) for found in others] if is_collapsed else None
    return Result(rank=rank, doc_id=placed.best.doc_id, **read(placed.best), translations=translations)


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
