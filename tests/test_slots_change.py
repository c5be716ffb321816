"""The slots of a gateway change while requests are answered, with real shards in this process. Without Ray."""

import asyncio
import inspect
from dataclasses import replace
from types import SimpleNamespace

import httpx
import pytest

from pipelines.fusion import Hybrid
from pipelines.segments.parts import list_parts
from serving.app import SHARD, describe
from serving.catalog import Catalog, Serving
from serving.generation import Generation
from serving.messages import Limits
from serving.shard import Shard
from serving.slots import Slots, used
from swap_driver import make_system


class Handle:
    """A handle whose replica is in this process. Searches wait for ``free``."""

    def __init__(self, replica, free):
        self.replica, self.free = replica, free

    def options(self, **_):
        return self

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

    async def open(self, name):
        if name in self.missing:
            raise RuntimeError(f"there is no {name}")
        served = self.systems[name]
        handles = {
            f"{SHARD}{part.name}": Handle(Shard(name, (served.snapshot, part)), self.free)
            for part in list_parts(served.snapshot)
        }
        catalog = Catalog(name, describe(served, Limits()), served.options, served.examples, has_encoder=False)
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
        assert slots.report(False).serves == (Serving("a1", "tiny", "bm25-1"), Serving("w1", "tiny", "bm25-2"))
        applications.missing.clear()
        await wait_until(lambda: names(slots) == ["a2", "w1"])
        assert (slots.failures, slots.report(False).in_flight) == ({}, {"a2": 0, "w1": 0})
        slots.change([["w1"]])
        assert names(slots) == ["w1"]

    run(scenario, systems)


def test_a_hybrid_search_counts_as_in_flight_in_both_systems_and_names_both(systems):
    async def scenario(slots, applications):
        slots.change([["a1"], ["w1"]])
        await wait_until(lambda: names(slots) == ["a1", "w1"])
        applications.free.clear()
        fingerprints = ["a1"]
        used.set(fingerprints)
        asking = asyncio.create_task(search(slots.default, hybrid=True, k=30))
        await wait_until(lambda: slots.report(False).in_flight["w1"] == 1)
        slots.change([["a1"]])  # the words are no longer served, and what has begun is answered
        assert slots.report(False).in_flight["w1"] == 1
        assert slots.default.words is None
        applications.free.set()
        answer = await asking
        assert answer["scored_by"] == "fusion"
        assert fingerprints == ["a1", "w1"]
        assert {name for result in answer["results"] for name in result["ranks"]} == {"bm25-1", "bm25-2"}
        assert "w1" not in slots.report(False).in_flight

    run(scenario, systems)
