"""The slots of a gateway change while requests are answered, with real shards in this process. Without Ray."""

import asyncio
import inspect
from dataclasses import replace
from types import SimpleNamespace

import httpx
import pytest

from pipelines.fusion import Hybrid
from pipelines.segments.growing import GrowingIndex
from serving import slots as slots_module
from serving.catalog import Serving
from serving.generation import Generation
from serving.messages import Limits
from serving.served import Layout
from serving.shard import Shards
from serving.slots import Slots, editions_used
from swap_driver import make_system
from tests.growing import write_parts


class Handle:
    """A handle whose only replica is in this process. Searches wait for ``free``."""

    def __init__(self, replica, free):
        self.replica, self.free = replica, free

    def options(self, **_):
        return self

    def broadcast(self, method, *arguments):
        return SimpleNamespace(results_async=lambda: getattr(self, method).remote(*arguments))

    def __getattr__(self, method):
        async def call(*arguments):
            if method == "search":
                await self.free.wait()
            result = getattr(self.replica, method)(*arguments)
            return await result if inspect.isawaitable(result) else result

        return SimpleNamespace(remote=call)


@pytest.fixture(scope="module")
def systems(tmp_path_factory):
    root = tmp_path_factory.mktemp("systems")
    student, words = (make_system(root / str(number), number, documents=6) for number in (1, 2))
    student = replace(student, hybrid=Hybrid(system=words.system))
    return {"a1": student, "a2": student, "w1": words}


class Applications:
    """Applications of parts by name; ``missing`` cannot be opened."""

    def __init__(self, systems):
        self.systems, self.missing, self.free = systems, set(), asyncio.Event()
        self.free.set()

    async def open(self, name, former):
        if name in self.missing:
            raise RuntimeError(f"there is no {name}")
        if former and former.name == name:
            handles = former.parts
        else:
            layout = replace(Layout.plan(self.systems[name], Limits(), 0, with_encoder=False), fingerprint=name)
            handles = {group: Handle(Shards(layout, group), self.free) for group in layout.groups}
        catalog = await next(iter(handles.values())).describe.remote()
        return Generation(name, catalog, handles, SimpleNamespace(count_search=lambda *_: None))


async def wait_until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def names(slots):
    return [generation.name for generation in slots.current]


async def search(generation, **body):
    transport = httpx.ASGITransport(generation.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        answer = await client.post("/search", json={"query": "copper road", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def run(scenario, systems):
    async def with_slots():
        applications = Applications(systems)
        slots = Slots(applications.open)
        try:
            await scenario(slots, applications)
        finally:
            slots.change([])

    asyncio.run(with_slots())


def test_a_slot_goes_on_with_what_it_serves_until_the_next_can_be_opened(systems):
    async def scenario(slots, applications):
        applications.missing.add("a2")
        slots.change([["a1"], ["w1"]])
        await wait_until(lambda: names(slots) == ["a1", "w1"])
        first = slots.default
        assert list(slots.list_models()) == ["tiny", "tiny/bm25-1", "tiny/bm25-2"]
        slots.change([["a2", "a1"], ["w1"]])
        await wait_until(lambda: "a2" in slots.failures)
        assert slots.default is first
        assert slots.report().serves == (Serving("a1", "tiny", "bm25-1"), Serving("w1", "tiny", "bm25-2"))
        applications.missing.clear()
        await wait_until(lambda: names(slots) == ["a2", "w1"])
        assert (slots.failures, slots.report().in_flight) == ({}, {"a2": 0, "w1": 0})
        slots.change([["w1"]])
        assert names(slots) == ["w1"]

    run(scenario, systems)


def test_a_hybrid_search_counts_as_in_flight_in_both_systems_and_names_both(systems):
    async def scenario(slots, applications):
        slots.change([["a1"], ["w1"]])
        await wait_until(lambda: names(slots) == ["a1", "w1"])
        applications.free.clear()
        editions = ["a1"]
        editions_used.set(editions)
        asking = asyncio.create_task(search(slots.default, hybrid=True, k=30))
        await wait_until(lambda: slots.report().in_flight["w1"] == 1)
        slots.change([["a1"]])  # the words are no longer served, and what has begun is answered
        assert slots.report().in_flight["w1"] == 1
        assert slots.default.words is None
        applications.free.set()
        answer = await asking
        assert answer["scored_by"] == "fusion"
        assert editions == ["a1", "w1"]
        assert {name for result in answer["results"] for name in result["ranks"]} == {"bm25-1", "bm25-2"}
        assert "w1" not in slots.report().in_flight

    run(scenario, systems)


def test_each_slot_follows_the_lists_of_its_own_index(systems, tmp_path, monkeypatch):
    """A student and its index of words grow one after the other; a hybrid search asks the newest edition of each."""
    monkeypatch.setattr(slots_module, "FOLLOW_S", 0.05)
    student, words = (make_system(tmp_path / str(number), number, documents=6) for number in (1, 2))
    grown = {"a1": replace(student, hybrid=Hybrid(system=words.system)), "w1": words}

    async def find(slots):
        editions = [slots.default.edition]
        editions_used.set(editions)
        answer = await search(slots.default, hybrid=True, k=30)
        return editions, {result["doc_id"]: result["ranks"] for result in answer["results"]}

    async def scenario(slots, applications):
        slots.change([["a1"], ["w1"]])
        await wait_until(lambda: names(slots) == ["a1", "w1"])
        before, of_words = slots.current
        assert "new" not in (await find(slots))[1]
        before.in_flight += 1  # a request that goes on
        for served, editions, found in (
            (words, ["a1", "w1+1"], {"bm25-2"}),
            (student, ["a1+1", "w1+1"], {"bm25-1", "bm25-2"}),
        ):
            parts = write_parts(tmp_path, {"new": "copper road road copper"})
            await asyncio.to_thread(GrowingIndex(served.index.place, served.docs).add, parts)
            await wait_until(lambda editions=editions: [one.edition for one in slots.current] == editions)
            asked, ranks = await find(slots)
            assert (asked, set(ranks["new"])) == (editions, found)
        assert slots.report().in_flight == {"a1": 1, "w1": 0}  # one application, whatever its edition
        assert [slots.former, before.edition, of_words.edition] == [[before], "a1", "w1"]
        assert "new" not in {one["doc_id"] for one in (await search(before, k=30))["results"]}
        assert [one.parts for one in slots.current] == [before.parts, of_words.parts]

    run(scenario, grown)


def test_a_list_that_cannot_be_opened_is_tried_again(systems, tmp_path, monkeypatch):
    monkeypatch.setattr(slots_module, "FOLLOW_S", 0.05)
    served = make_system(tmp_path, 1, documents=6)

    async def scenario(slots, applications):
        slots.change([["a1"]])
        await wait_until(lambda: names(slots) == ["a1"])
        first = slots.default
        applications.missing.add("a1")
        await asyncio.to_thread(GrowingIndex(served.index.place, served.docs).delete, ["d0"])
        await wait_until(lambda: "a1" in slots.failures)
        assert slots.default is first
        applications.missing.clear()
        await wait_until(lambda: slots.default.edition == "a1+1")
        assert slots.failures == {}

    run(scenario, {"a1": served})
