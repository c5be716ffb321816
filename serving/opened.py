"""The shards of one deployment, opened as each list of the index's segments has them. Without Ray and without torch.

The shards of a language are searched as one; languages side by side in threads that are kept, small ones one after
another in one: to hand a thread its work costs more than to search a few thousand passages. A list is opened when it
is first asked for; the one before stays open for requests that began with it. Files are mapped into memory, so a second
list takes what its own segments take, and for each shard a few numbers per document.
"""

import asyncio
import ctypes
import json
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipelines.filters.subset import Selector
from pipelines.indexes.base import Query, Ranking, ShardGroup
from pipelines.search import search
from pipelines.segments.lists import newest_number
from pipelines.segments.parts import list_parts
from pipelines.segments.snapshot import SegmentDocs, Snapshot
from serving.arrange import arrange
from serving.messages import SearchRequest
from serving.served import SHARD, Layout
from serving.subsets import read_subset

Name = tuple[str, str]  # language and id of a document
Text = tuple[str, str]  # title and text
BY_VALUE = 700_000  # characters of the texts of an answer: at most 4 bytes each, in a gRPC message of at most 4 MiB
RUN = 100_000  # passages that a thread searches before another is worth its cost
KEPT = 2  # lists that are open at a time
ARENAS = 2  # of malloc: by default there are eight for each core, and each keeps what its threads once took
M_ARENA_MAX = -8  # mallopt's name for their number, from malloc.h


class PartAnswer(NamedTuple):
    """What shards found for a request: (doc id, score) by language, best first; the texts of the best, none where they
    are longer than a message; and the seconds that encoding the query took."""

    rankings: dict[str, Ranking]
    texts: dict[Name, Text]
    encode_s: float = 0.0


@dataclass(frozen=True)
class _OpenList:
    """What is open of a list. ``runs`` are the languages that a thread searches one after another."""

    shards: Mapping[str, ShardGroup]
    docs: Mapping[str, SegmentDocs]
    selectors: Mapping[str, Selector]
    runs: Sequence[Sequence[str]]


class OpenShards:
    """The shards of the deployment ``group`` of a layout. Opens the newest list, and searches it once, so that no
    user waits for what a first search does."""

    def __init__(self, layout: Layout, group: str):
        limit_arenas()
        self.layout, self.group = layout, group
        self.lists: dict[int, _OpenList] = {}
        self.opening = threading.Lock()
        self.threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "search")
        self.warm_up = _make_query(json.loads((layout.served.index.place / "index.json").read()))
        self.open(newest_number(layout.served.index.place))

    def open(self, number: int) -> _OpenList:
        """Open the list of this number, or return it where it is open. Raises StorageError where it was removed."""
        if opened := self.lists.get(number):  # without the lock: another list may take minutes to open
            return opened
        with self.opening:
            if number not in self.lists:
                made = self._open(number)
                for shards in made.shards.values():
                    search(shards, self.warm_up, self.layout.served.options)
                self.lists = dict([*self.lists.items(), (number, made)][-KEPT:])
            return self.lists[number]

    def _open(self, number: int) -> _OpenList:
        served = self.layout.served
        snapshot = Snapshot.at(served.index.place, served.docs, number)
        held: dict[str, list[Any]] = {}
        passages = Counter[str]()
        for part in list_parts(snapshot):
            if self.layout.find_group(f"{SHARD}{part.name}") == self.group:
                held.setdefault(part.lang, []).extend(part.shards)
                passages[part.lang] += part.passages
        groups = {lang: snapshot.open(lang, {shard.name for shard in shards}) for lang, shards in held.items()}
        docs = {lang: snapshot.open_docs(lang, {shard.segment for shard in shards}) for lang, shards in held.items()}
        selectors = {
            lang: snapshot.select_from(groups[lang], docs[lang], [shard.name for shard in shards])
            for lang, shards in held.items()
        }
        return _OpenList(groups, docs, selectors, _cut_runs(passages))

    async def search(self, number: int, query: Query, request: SearchRequest, with_texts: bool) -> PartAnswer:
        """Search the languages that are asked for, each for the page and all before it; with the texts of the page."""
        opened = await self._find(number)
        depth = request.offset + request.k
        probes = {"probes": request.probes} if request.probes else {}
        options = self.layout.served.options.model_copy(update={"k": depth} | probes)
        runs = [[lang for lang in run if not request.languages or lang in request.languages] for run in opened.runs]
        subset = read_subset(request)
        loop = asyncio.get_running_loop()

        def search_one(lang: str) -> Ranking:
            return search(opened.shards[lang], [query], options, opened.selectors[lang].select(subset))[0]

        def search_run(langs: Sequence[str]) -> dict[str, Ranking]:
            return {lang: search_one(lang) for lang in langs}

        def finish(found: Sequence[Mapping[str, Ranking]]) -> PartAnswer:
            rankings = {lang: ranking for some in found for lang, ranking in some.items()}
            texts = _read_page(opened, rankings, request) if with_texts else {}
            return PartAnswer(rankings, texts if _is_short(texts) else {})

        first, *others = [run for run in runs if run] or [[]]
        if not others:
            return await loop.run_in_executor(self.threads, lambda: finish([search_run(first)]))
        searches = [loop.run_in_executor(self.threads, search_run, run) for run in (first, *others)]
        return await loop.run_in_executor(self.threads, finish, await asyncio.gather(*searches))

    async def read_texts(self, number: int, names: list[Name]) -> dict[Name, Text]:
        """Read title and text of each document."""
        opened = await self._find(number)
        return await asyncio.get_running_loop().run_in_executor(self.threads, _read, opened, names)

    async def _find(self, number: int) -> _OpenList:
        if opened := self.lists.get(number):
            return opened
        return await asyncio.to_thread(self.open, number)


def limit_arenas() -> None:
    """Bound the memory that malloc keeps for threads, where the C library can."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


def _make_query(facts: Mapping[str, Any]) -> list[Query]:
    """A query of an index that ``index.json`` describes; none where that does not say how wide its vectors are."""
    if facts["kind"] == "bm25":
        return ["warm up"]
    return [np.ones((1, facts["dim"]), np.float32)] if facts.get("dim") else []


def _cut_runs(passages: Mapping[str, int]) -> list[list[str]]:
    """Languages, in their order, in runs of at most ``RUN`` passages, of one language at least."""
    runs: list[list[str]] = []
    room = 0
    for lang, count in passages.items():
        if not runs or count > room:
            runs.append([])
            room = RUN
        runs[-1].append(lang)
        room -= count
    return runs


def _read_page(opened: _OpenList, rankings: Mapping[str, Ranking], request: SearchRequest) -> dict[Name, Text]:
    """Read the texts of the page that is asked for."""
    page = arrange(rankings, request)
    return _read(opened, [(hit.lang, hit.doc_id) for placed in page for hit in (placed.best, *placed.others)])


def _read(opened: _OpenList, names: Iterable[Name]) -> dict[Name, Text]:
    """Title and text of each document. Those of a language are looked up together."""
    ids = defaultdict[str, list[str]](list)
    for lang, doc_id in names:
        ids[lang].append(doc_id)
    return {
        (lang, doc_id): (row["title"] or "", row["text"])
        for lang, of_lang in ids.items()
        for doc_id, row in zip(of_lang, opened.docs[lang].rows(of_lang), strict=True)
    }


def _is_short(texts: Mapping[Name, Text]) -> bool:
    return sum(len(title) + len(text) for title, text in texts.values()) <= BY_VALUE
