"""Writers of an index killed at random beside a reader: no document lost, none twice, none found after its deletion."""

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines.indexes.exact import Exact
from pipelines.segments.growing import GrowingIndex
from pipelines.segments.lists import SEGMENTS, TOMBSTONES, clean, live_place, newest_list
from tests.growing import Watcher, make_growing, make_texts, read_texts
from tests.segment_writer import read_journal, write_until_killed

LONGEST_S = 0.3  # between what the journal says and the kill: a change takes about as long


def kill_writers(root: Path, kills: int, seed: int) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.segment_writer", "pipelines.indexes.exact"])
    rng = np.random.default_rng(seed)
    there = make_texts(12)
    growing = make_growing(root, Exact(), {"en": there})
    cut_short = changes = 0
    for number in range(kills):
        journal = root / f"journal-{number}"
        writer = context.Process(target=write_until_killed, args=(growing, there, int(rng.integers(10**9)), journal))
        with Watcher(growing) as watcher:
            writer.start()
            lines = int(rng.integers(1, 5))  # a change is begun, done, another is begun, …
            while not journal.exists() or journal.read_text().count("\n") < lines:
                assert writer.is_alive()
                time.sleep(0.005)
            time.sleep(rng.uniform(0, LONGEST_S))
            writer.kill()
            writer.join()
        states, begun = read_journal(journal, there)
        possible = [*states, *([begun] if begun is not None else [])]
        for seen in watcher.seen:
            assert seen in possible, "a reader saw what was never there"
        there = read_texts(growing.snapshot())
        assert there in (states[-1], begun)
        changes += len(states) - 1
        cut_short += begun is not None
    assert changes >= kills / 2
    assert cut_short >= kills / 2
    growing.delete(list(there)[:1])  # the next change removes what the killed writers left
    check_leftovers(growing)


def check_leftovers(growing: GrowingIndex) -> None:
    live, state = live_place(growing.index), newest_list(growing.index)
    clean(growing.index, grace_s=0)
    assert [place.name for place in (live / SEGMENTS).list()] == sorted(
        segment.name for segment in state.segments if segment.name != "base"
    )
    named = {segment.tombstones for segment in state.segments if segment.tombstones}
    assert {path.name for path in (live / TOMBSTONES).path.glob("*")} == named
    assert [path.name for path in (live / "lists").path.glob("*")] == [f"{state.number:08d}.json"]


@pytest.mark.parametrize("kills", [20, pytest.param(int(os.environ.get("BABELRAY_KILLS", 60)), marks=pytest.mark.slow)])
def test_killed_writers_lose_nothing(kills: int, tmp_path: Path) -> None:
    kill_writers(tmp_path, kills, seed=kills)
