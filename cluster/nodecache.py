"""Things built once per node and found again: copies of artifacts, converted models, statistics of a collection.

They are derived from what never changes, named by a hash of it, and may be deleted at any time. The first process on a
node builds an entry under a lock for builders; the others wait and find it. A process that has asked for an entry holds
a shared lock on it until it ends: what it has open stays. When a new entry makes the cache larger than
``BABELRAY_CACHE_GB`` (half of the disk where that is not set), the entries that were not asked for longest, and that
nobody holds, go.

``BABELRAY_CACHE`` names the directory. An entry is ``<kind>/<hash>``. Beside it are ``<hash>.lock``, which its users
hold and whose time of change is that of the last use; ``<hash>.build``, which its builder holds; and ``<hash>.size``,
its bytes.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

log = logging.getLogger("babelray")
SHARE = 0.5  # of the disk
_held: dict[Path, IO[str]] = {}  # the locks of this process, by entry
_guard = threading.Lock()


def cached(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """Return the path ``<cache>/<kind>/<hash of key>``; when it is not there, ``build(path)`` writes it first.

    ``build`` gets a path where nothing is yet and writes a file or a directory there; it is renamed into place when
    done, so a killed process leaves nothing half made.
    """
    entry = cache_directory() / kind / hashlib.sha256(key.encode()).hexdigest()[:16]
    entry.parent.mkdir(parents=True, exist_ok=True)
    is_new = False
    while not _hold(entry):  # again where another process made room in the moment between
        is_new = _build(entry, build)
    if is_new:
        _make_room()
    return entry


def cache_directory() -> Path:
    """Where this node's cache is."""
    return Path(os.environ.get("BABELRAY_CACHE") or Path(tempfile.gettempdir()) / f"babelray-{os.getuid()}")


def _hold(entry: Path) -> bool:
    """Take a shared lock on an entry until this process ends, and note its use; False where it is not there."""
    with _guard:
        if entry in _held and entry.exists():
            os.utime(_held[entry].fileno())
            return True
        if entry in _held:  # deleted by hand
            _held.pop(entry).close()
    lock = entry.with_suffix(".lock").open("a")
    fcntl.flock(lock, fcntl.LOCK_SH)  # waits for who deletes it
    if not entry.exists():
        lock.close()
        return False
    os.utime(lock.fileno())
    with _guard:
        if _held.setdefault(entry, lock) is not lock:
            lock.close()
    return True


def _build(entry: Path, build: Callable[[Path], None]) -> bool:
    """Build an entry; False where another thread or process did so meanwhile. Builders wait for each other on a lock of
    their own: who uses an entry keeps ``.lock`` until its process ends."""
    with entry.with_suffix(".build").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if entry.exists():
            return False
        draft = entry.with_suffix(".tmp")
        _delete(draft)
        build(draft)
        size = entry.with_suffix(".draft")  # others list the entries without a lock
        size.write_text(str(_measure(draft)))
        os.replace(size, entry.with_suffix(".size"))
        os.replace(draft, entry)
        return True


def _make_room() -> None:
    """Delete the entries that were not used longest, until the cache is no larger than its limit."""
    limit, entries = _limit_bytes(), _list_entries()
    total = sum(size for _, size, _ in entries)
    for _, size, entry in entries:
        if total <= limit:
            return
        if _evict(entry):
            total -= size
    if total > limit:
        log.warning(
            "processes use %.1f GB of the cache %s, more than its limit of %.1f GB (BABELRAY_CACHE_GB)",
            total / 2**30,
            cache_directory(),
            limit / 2**30,
        )


def _evict(entry: Path) -> bool:
    """Delete an entry unless a process holds it; returns whether it is gone."""
    with entry.with_suffix(".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        _delete(entry)
        entry.with_suffix(".size").unlink(missing_ok=True)
    return True


def _limit_bytes() -> float:
    if limit := os.environ.get("BABELRAY_CACHE_GB"):
        return float(limit) * 2**30
    return SHARE * shutil.disk_usage(cache_directory()).total


def _list_entries() -> list[tuple[int, int, Path]]:
    """Time of last use, bytes and path of each entry, the one not used for longest first."""
    found = []
    for file in cache_directory().glob("*/*.size"):
        try:
            used = file.with_suffix(".lock").stat().st_mtime_ns
            found.append((used, int(file.read_text()), file.with_suffix("")))
        except FileNotFoundError:  # another process makes room too
            continue
    return sorted(found)


def _measure(path: Path) -> int:
    """Bytes of a file or of all files below a directory."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
