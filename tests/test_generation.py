"""How parts answer together, without Ray: the same whatever shares a process, and by the edition that was asked for."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.segments.growing import GrowingIndex
from serving import opened
from serving.app import Served
from serving.catalog import ENCODER, ForeignError, Part
from serving.generation import FEW, Generation
from serving.messages import Limits, SearchAnswer, SearchRequest
from serving.served import Layout
from serving.shard import Shards
from serving_apps import TEXTS, make_lexical_system, make_words_system
from tests.growing import write_parts


class Handle:
    """A handle of a deployment, as Serve gives it, whose replica is in this process; counts the calls of each way."""

    def __init__(self, replica: Any, calls: dict[bool, int], by_reference: bool = False):
        self.replica, self.calls, self.by_reference = replica, calls, by_reference

    def options(self, _by_reference: bool) -> "Handle":
        return Handle(self.replica, self.calls, _by_reference)

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=self._call(getattr(self.replica, method)))

    def _call(self, method: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **carried: Any) -> Any:
            self.calls[self.by_reference] += 1
            return await method(*arguments, **carried)

        return call


class Uncounted:
    """Takes the counts of a search."""

    def count_search(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return make_words_system(tmp_path_factory.mktemp("words"))


def open_parts(served: Served, most_bytes: float) -> dict[str, Shards]:
    layout = Layout.plan(served, Limits(), most_bytes, with_encoder=True)
    return {group: Shards(layout, group) for group in layout.groups}


def make_generation(parts: Mapping[str, Part], calls: dict[bool, int] | None = None) -> Generation:
    """A generation of the newest edition of these parts."""
    catalog = asyncio.run(next(iter(parts.values())).describe())
    counted = {True: 0, False: 0} if calls is None else calls
    handles = {name: Handle(part, counted) for name, part in parts.items()}
    return Generation("babelray-f", catalog, handles, Uncounted())  # type: ignore[arg-type]


def answer(generation: Generation, query: str, **options: Any) -> SearchAnswer:
    return asyncio.run(generation.answer(SearchRequest(query=query, **options)))


def list_names(found: SearchAnswer) -> list[str]:
    return [f"{result.lang}:{result.doc_id}" for result in found.results]


REQUESTS: dict[str, dict[str, Any]] = {
    "some": {"k": 3},
    "all": {"k": 20},
    "more than come with texts": {"k": FEW + 1},
    "a later page": {"k": 3, "offset": 2},
    "two languages": {"k": 5, "languages": ["en", "fa"]},
    "one language": {"k": 5, "languages": ["en"]},
    "a quota": {"k": 6, "per_language": 1},
    "collapsed": {"k": 4, "collapse": True},
    "collapsed, a later page": {"k": 2, "offset": 1, "collapse": True},
}


@pytest.mark.parametrize("request_of", REQUESTS)
@pytest.mark.parametrize("query", ["the currency of Russia", "currency Столица Ирана 首都 تهران"])
def test_an_answer_is_the_same_whatever_shares_a_process(served: Served, request_of: str, query: str) -> None:
    apart, together = (make_generation(open_parts(served, most)) for most in (0, 1e9))
    assert (len(apart.parts), len(together.parts)) == (5, 1)
    found = [answer(one, query, **REQUESTS[request_of]) for one in (apart, together)]
    assert found[0].results == found[1].results
    assert found[0].results
    documents = {lang: [doc for part in parts for doc in part] for lang, parts in TEXTS.items()}
    for result in found[0].results:
        assert (result.title, result.text) == documents[result.lang][int(result.doc_id[1:])]


def open_encoder(layout: Layout) -> Part:
    from serving.encoder import Encoder

    class Unbatched(Encoder):
        """Encodes queries one by one: Serve gathers them in its own replicas alone."""

        async def encode_batch(self, text: str) -> Any:  # type: ignore[override]
            return self.model.encode_queries([text])[0]

    return Unbatched(layout)


def test_an_encoder_that_holds_the_shards_answers_as_one_that_does_not(tmp_path: Path) -> None:
    served = make_lexical_system(tmp_path)
    shared, apart = (Layout.plan(served, Limits(), most, with_encoder=True) for most in (1e9, 0))
    assert (list(shared.groups), shared.is_shared, apart.is_shared) == ([ENCODER], True, False)
    generations = [
        make_generation({ENCODER: open_encoder(shared)}),
        make_generation({ENCODER: open_encoder(apart), **{group: Shards(apart, group) for group in apart.groups}}),
    ]
    for options in ({"k": 4}, {"k": 20, "languages": ["en", "fa"]}, {"k": FEW + 1, "collapse": True}):
        one, other = (answer(generation, "the currency of Russia", **options) for generation in generations)
        assert one.results
        assert [(r.doc_id, r.lang, r.text) for r in one.results] == [(r.doc_id, r.lang, r.text) for r in other.results]
        assert set(one.took_ms) == set(other.took_ms) == {"encode", "search", "texts", "total"}
        assert all(ms > 0 for name, ms in one.took_ms.items() if name != "texts")


def test_shards_share_a_process_up_to_the_bytes_that_it_may_hold(served: Served) -> None:
    shards = make_generation(open_parts(served, 0)).info.shards
    assert {shard.part for shard in shards} == {shard.name for shard in shards}
    sizes = [shard.bytes + shard.text_bytes for shard in shards]
    two = Layout.plan(served, Limits(), sizes[0] + sizes[1], with_encoder=False)
    assert list(two.groups)[0] == "shards-0"
    assert two.groups["shards-0"] == ("shard-en-00000", "shard-en-00001")
    assert [shard for group in two.groups.values() for shard in group] == [shard.name for shard in shards]


@pytest.mark.parametrize(
    ("together", "k", "expected"),
    [
        (True, 3, {False: 1, True: 0}),  # the page comes with its texts
        (False, 3, {False: 5, True: 0}),  # so do the best of each part
        (False, FEW + 1, {False: 5, True: 5}),  # many texts are read where the page needs them
    ],
)
def test_calls_of_a_search(served: Served, together: bool, k: int, expected: dict[bool, int]) -> None:
    calls = {True: 0, False: 0}
    found = answer(make_generation(open_parts(served, 1e9 * together), calls), "currency Иран 首都 ایران", k=k)
    assert len({result.lang for result in found.results}) > 1
    assert calls[False] == expected[False]
    assert calls[True] <= expected[True]
    assert bool(calls[True]) == bool(expected[True])


def test_long_texts_are_read_by_reference(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {True: 0, False: 0}
    generation = make_generation(open_parts(served, 1e9), calls)
    short = answer(generation, "currency", k=5)
    assert calls == {False: 1, True: 0}
    monkeypatch.setattr(opened, "BY_VALUE", 5)
    assert answer(generation, "currency", k=5).results == short.results
    assert calls == {False: 2, True: 1}


@pytest.mark.parametrize("most_bytes", [0, 1e9])
def test_an_edition_answers_from_its_own_list(tmp_path: Path, most_bytes: float) -> None:
    """What is added and deleted is seen by the next edition of parts that run, and not by the one before."""
    served = make_words_system(tmp_path)
    growing = GrowingIndex(served.index.place, served.docs)
    parts = open_parts(served, most_bytes)
    before = make_generation(parts)
    growing.add(write_parts(tmp_path, {"new": "The lek is the currency of Albania."}))
    growing.delete(["d2"], ["en"])
    after = make_generation(parts)
    assert (before.edition, after.edition) == (before.catalog.edition, f"{before.edition}+2")
    assert after.info.documents == before.info.documents
    for _ in range(2):  # one is no worse for the other
        assert list_names(answer(before, "lek Albania")) == []
        assert "en:d2" in list_names(answer(before, "ruble Russia"))
        assert list_names(answer(after, "lek Albania")) == ["en:new"]
        assert "en:d2" not in list_names(answer(after, "ruble Russia"))
    growing.compact()
    compacted = make_generation(parts)
    assert compacted.edition == f"{before.edition}+3"
    for query in ("lek Albania", "ruble Russia", "currency"):
        assert answer(compacted, query, k=20).results == answer(after, query, k=20).results
    assert "en:d2" in list_names(answer(before, "ruble Russia"))  # opened again: two lists are kept


def test_a_part_refuses_a_call_for_another_fingerprint(served: Served) -> None:
    (part,) = open_parts(served, 1e9).values()
    request = SearchRequest(query="copper")
    for call in (
        part.search("bbb", "copper", request, True),
        part.read_texts("bbb+1", [("en", "d0")]),
        part.ping("bbb"),
    ):
        with pytest.raises(ForeignError, match=f"serves {part.layout.fingerprint} and was asked for bbb:"):
            asyncio.run(call)
