"""Any history of changes against a dictionary, two writers at once, lists that were removed meanwhile."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.storage import Place
from pipelines.indexes.base import SearchOptions
from pipelines.indexes.exact import Exact
from pipelines.segments.growing import GrowingIndex
from pipelines.segments.lists import SEGMENTS, clean, commit, live_place, newest_list
from tests.growing import Watcher, encode_text, make_growing, make_texts, rank, read_texts, write_parts
from tests.segment_writer import apply, make
from tests.shards import oracle

BASE = make_texts(10)
TEXTS = list(make_texts(40, seed=5).values())
NAMES = st.sampled_from([*BASE, *(f"n{i}" for i in range(8))])
ADD = st.tuples(
    st.just("add"), st.dictionaries(NAMES, st.sampled_from(TEXTS), min_size=1, max_size=5), st.just(list[str]())
)
DELETE = st.tuples(st.just("delete"), st.just(dict[str, str]()), st.lists(NAMES, max_size=8, unique=True))
COMPACT = st.just(("compact", dict[str, str](), list[str]()))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> GrowingIndex:
    return make_growing(tmp_path_factory.mktemp("base"), Exact(), {"en": BASE})


def copy(growing: GrowingIndex, root: Path) -> GrowingIndex:
    """The same index at another place, of which nothing has changed."""
    shutil.copytree(growing.index.path, root / "index@0")
    return replace(growing, index=Place.of(root / "index@0"))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(ADD | DELETE | COMPACT, min_size=1, max_size=6))
def test_any_history(changes: list, base: GrowingIndex, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("history")
    growing = copy(base, root)
    states = [BASE]
    query = encode_text("w3 w30 w60").astype(np.float32)
    with Watcher(growing) as watcher:
        for change in changes:
            make(growing, change, root)
            states.append(apply(change, states[-1]))
            (found,) = rank(growing.snapshot(), [query], SearchOptions(k=5))
            truth = oracle(query, [(name, [encode_text(text)]) for name, text in states[-1].items()], 5)
            assert [name for name, _ in found] == [name for name, _ in truth]
            np.testing.assert_allclose([s for _, s in found], [s for _, s in truth], rtol=1e-6)
            assert read_texts(growing.snapshot()) == states[-1]
            assert newest_list(growing.index).count() == {"en": len(states[-1])}
    for seen in watcher.seen:
        assert seen in states


def test_two_writers_lose_nothing_of_each_other(base: GrowingIndex, tmp_path: Path) -> None:
    growing = copy(base, tmp_path)
    texts = {f"{writer}{i}": text for writer in "ab" for i, text in enumerate(TEXTS[:6])}

    def write(writer: str) -> None:
        scratch = tmp_path / writer
        scratch.mkdir()
        for i in range(6):
            growing.add(write_parts(scratch, {f"{writer}{i}": TEXTS[i], "both": TEXTS[i]}))
            growing.delete([f"d{i}"])

    threads = [threading.Thread(target=write, args=(writer,)) for writer in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = read_texts(growing.snapshot())
    assert held.pop("both") in TEXTS[:6]
    assert held == {name: text for name, text in BASE.items() if name not in [f"d{i}" for i in range(6)]} | texts
    named = {segment.name for segment in newest_list(growing.index).segments} - {"base"}
    assert {place.name for place in (live_place(growing.index) / SEGMENTS).list()} >= named


def test_a_writer_that_slept_too_long_has_lost(base: GrowingIndex, tmp_path: Path) -> None:
    growing = copy(base, tmp_path)
    asleep = newest_list(growing.index)
    for i in range(4):
        growing.add(write_parts(tmp_path, {f"n{i}": TEXTS[i]}))
    state = newest_list(growing.index)
    late = asleep.follow(asleep.segments, {})
    assert not commit(growing.index, late)  # its number is taken
    clean(growing.index, grace_s=0)
    lists = live_place(growing.index) / "lists"
    assert [place.name for place in lists.list()] == ["00000004.json"]
    assert not commit(growing.index, late)  # its number is free again
    next_late = state.model_copy(update={"number": 2}).follow(state.segments, {})
    assert not commit(growing.index, next_late)  # the number just before the newest
    assert newest_list(growing.index) == state
    assert [place.name for place in lists.list()] == ["00000004.json"]


def test_what_another_writer_is_making_is_left_alone(base: GrowingIndex, tmp_path: Path) -> None:
    growing = copy(base, tmp_path)
    growing.add(write_parts(tmp_path, {"n1": TEXTS[0]}))
    begun = live_place(growing.index) / SEGMENTS / newest_list(growing.index).next_id()
    (begun / "index.json").write(b"{}")
    assert clean(growing.index, grace_s=0) == []
    assert begun.exists()
    growing.delete(["n1"])  # takes the number that it was to be named by
    assert not begun.exists()


def test_a_reader_of_an_older_list_reads_on_until_the_grace_is_over(base: GrowingIndex, tmp_path: Path) -> None:
    growing = copy(base, tmp_path)
    growing.add(write_parts(tmp_path, {"n1": TEXTS[0]}))
    growing.delete(["d1"])
    old = growing.snapshot()
    expected = read_texts(old)
    growing.compact()
    growing.add(write_parts(tmp_path, {"n2": TEXTS[1]}))
    assert read_texts(old) == expected
    removed = clean(growing.index, grace_s=0)
    assert old.state.segments[1].name in removed
    with pytest.raises(Exception, match=r"no file at .*index\.json"):
        read_texts(growing.snapshot().__class__(old.index, old.docs, old.state))
    assert read_texts(growing.snapshot()).keys() == (expected | {"n2": ""}).keys()
