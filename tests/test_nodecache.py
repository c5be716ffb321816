"""The node's cache: made once, bounded, and never emptied under a process that uses it."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster import nodecache
from cluster.nodecache import cached

KB = 1 / 2**20  # of a GB


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BABELRAY_CACHE_GB", str(10 * KB))
    monkeypatch.setattr(nodecache, "_held", {})
    return tmp_path / "cache"


def blob(size: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(bytes(size))


def let_go() -> None:
    """As if the process that used the entries had ended."""
    for lock in nodecache._held.values():
        lock.close()
    nodecache._held.clear()


def test_least_recently_used_entries_go_first() -> None:
    first, second, third = (cached("blobs", name, blob(3000)) for name in "abc")
    let_go()
    time.sleep(0.02)
    assert cached("blobs", "a", blob(3000)) == first
    let_go()
    time.sleep(0.02)
    fourth = cached("blobs", "d", blob(3000))
    assert [path.exists() for path in (first, second, third, fourth)] == [True, False, True, True]
    assert sum(1 for _ in second.parent.glob(second.name + ".size")) == 0
    assert cached("blobs", "b", blob(3000)).exists(), "what went is made again"


@contextmanager
def process_that_uses(name: str, size: int) -> Iterator[None]:
    """Another process that makes an entry and holds it."""
    code = (
        "import sys, time; from cluster.nodecache import cached; "
        f"cached('blobs', {name!r}, lambda path: path.write_bytes(bytes({size}))); print('here', flush=True); "
        "time.sleep(100)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"here\n"
        yield
    finally:
        process.kill()
        process.wait()


def test_entry_that_a_process_uses_stays(caplog: pytest.LogCaptureFixture) -> None:
    with process_that_uses("a", 9000):
        second = cached("blobs", "b", blob(9000))
        first = cached("blobs", "a", lambda path: pytest.fail("was there"))
        let_go()
        assert first.exists()
        assert second.exists(), "this process uses it"
        assert "more than its limit" in caplog.text
    cached("blobs", "c", blob(100))
    assert [path.exists() for path in (second, first)] == [False, True], (
        "the one not used for longest goes, then it fits"
    )


def test_directories_are_measured_and_removed_whole(cache: Path) -> None:
    def tree(path: Path) -> None:
        (path / "deep").mkdir(parents=True)
        (path / "deep" / "one").write_bytes(bytes(6000))
        (path / "two").write_bytes(bytes(3000))

    directory = cached("trees", "a", tree)
    let_go()
    cached("blobs", "b", blob(5000))
    assert not directory.exists()


def test_many_at_once_make_it_once() -> None:
    made: list[int] = []

    def slow(path: Path) -> None:
        made.append(threading.get_ident())
        time.sleep(0.2)
        cached("inner", "x", blob(10))  # an entry may need another
        path.write_bytes(b"1")

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(lambda _: cached("blobs", "a", slow), range(8)))) == 1
    assert len(made) == 1


@pytest.mark.timeout(30)
def test_who_uses_an_entry_keeps_nobody_from_making_it(cache: Path) -> None:
    with process_that_uses("a", 10):
        (entry,) = (file.with_suffix("") for file in cache.glob("blobs/*.size"))
        entry.unlink()
        assert cached("blobs", "a", blob(20)).stat().st_size == 20


def test_entry_deleted_by_hand_is_made_again() -> None:
    cached("blobs", "a", blob(10)).unlink()
    assert cached("blobs", "a", blob(20)).stat().st_size == 20


def test_failed_build_leaves_nothing(cache: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cached("blobs", "a", fail)
    assert cached("blobs", "a", blob(7)).read_bytes() == bytes(7)
