"""Lists of segments: which is the newest, how one is committed, what no list names.

A list holds the token of the list that it follows. A number may be free because its list was removed long ago. So who
has created a list looks at the list of the next number: if there is one and it follows another token, the writer has
lost, as if its own number had been taken. Costs one listing of a directory to read, two to commit.
"""

import json
import os
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict

from cluster.errors import StorageError
from cluster.storage import Place

BASE = "base"  # the name of the index artifact among the segments
LISTS, SEGMENTS, TOMBSTONES = "lists", "segments", "tombstones"
GRACE_S = 86_400.0  # how long what a newer list replaced stays for who reads it


class Segment(BaseModel):
    """A segment as a list names it: its documents by language, how many of them are dead, and the file of their ids."""

    model_config = ConfigDict(frozen=True)
    name: str
    docs: dict[str, int]
    dead: dict[str, int] = {}
    tombstones: str = ""


class SegmentList(BaseModel):
    """The segments that count, oldest first. Number 0 is the index artifact alone, and is in no file.

    Attributes:
        token: tells this list from another that was to have its number; ``previous`` is that of the list before.
        cosines: by language, the mean cosine of the index's first vectors to their cells; see ``drift``.
        facts: what made the list, for people.
    """

    model_config = ConfigDict(frozen=True)
    number: int = 0
    token: str = ""
    previous: str = ""
    created: str = ""
    segments: tuple[Segment, ...]
    cosines: dict[str, float] = {}
    facts: dict[str, Any] = {}

    def follow(self, segments: tuple[Segment, ...], facts: dict[str, Any], **changed: Any) -> "SegmentList":
        """The list to commit after this one."""
        values = {"number": self.number + 1, "token": uuid.uuid4().hex, "previous": self.token}
        created = datetime.now(UTC).isoformat(timespec="seconds")
        return self.model_copy(update={**values, "created": created, "segments": segments, "facts": facts, **changed})

    def count(self) -> dict[str, int]:
        """The living documents by language."""
        langs = sorted({lang for segment in self.segments for lang in segment.docs})
        return {lang: sum(s.docs.get(lang, 0) - s.dead.get(lang, 0) for s in self.segments) for lang in langs}

    def next_id(self) -> str:
        """A new id of a segment or of tombstones that the next list is to name."""
        return f"{self.number + 1:08d}-{uuid.uuid4().hex[:12]}"


def live_place(index: Place) -> Place:
    """Where the segments and lists of an index artifact stand."""
    base = index.redacted
    return Place(f"{base.rstrip('/')}.live{index.uri.removeprefix(base)}")


def newest_list(index: Place) -> SegmentList:
    """The newest list of an index artifact; where there is none, the artifact alone."""
    while numbers := _numbers(index):
        try:
            return _read(index, numbers[-1])
        except StorageError:
            if _list_place(index, numbers[-1]).exists():
                raise
    return read_list(index, 0)


def read_list(index: Place, number: int) -> SegmentList:
    """The list of this number; of number 0 the artifact alone. Raises StorageError where it was removed."""
    if number:
        return _read(index, number)
    docs: dict[str, int] = {}
    for shard in json.loads((index / "index.json").read())["shards"]:
        docs[shard["lang"]] = docs.get(shard["lang"], 0) + shard["docs"]
    return SegmentList(segments=(Segment(name=BASE, docs=docs),))


def newest_number(index: Place) -> int:
    """The number of the newest list; 0 where there is none. The artifact need not be there."""
    return max(_numbers(index), default=0)


def commit(index: Place, new: SegmentList) -> bool:
    """Make a list the newest; False where another writer has its number, or had it once. All that it names must be
    there."""
    place = _list_place(index, new.number)
    if not place.create(new.model_dump_json(indent=1).encode()) and not _is(index, new):
        return False
    later = [number for number in _numbers(index) if number > new.number]
    if not later or (later[0] == new.number + 1 and _read(index, later[0]).previous == new.token):
        return True
    place.delete()
    return False


def clean(index: Place, grace_s: float | None = None) -> list[str]:
    """Remove the lists that a newer one replaced more than ``grace_s`` seconds ago, and the segments and tombstones
    that no list names any more or ever will. Returns the names of what was removed.

    ``grace_s`` is ``BABELRAY_GRACE_S`` by default, or a day: a reader that opened a list may open its files so long.
    What a writer is making now is left alone, as are files whose writing was cut short less than the grace ago.

    Two lists are read, however many there are. A file is named by the list of its own number, if by any, and by all
    later ones until one drops it for good. So if the oldest list that is kept does not name an older file, no later
    list does; and if the newest list does not name a file of its own number, none ever will.
    """
    grace_s = float(os.environ.get("BABELRAY_GRACE_S") or GRACE_S) if grace_s is None else grace_s
    live, oldest = live_place(index), (time.time() - grace_s) * 1e9
    changed = {path.rpartition("/")[2]: time_ns for path, _, time_ns in (live / LISTS).files()}
    numbers = [number for number in _numbers(index) if _list_place(index, number).name in changed]
    if not numbers:
        return []
    after = dict(pairwise(numbers))
    old = [n for n, later in after.items() if changed[_list_place(index, later).name] < oldest]
    removed = [place for place in (_list_place(index, number) for number in old) if _remove(place)]
    newest, oldest_kept = numbers[-1], next(number for number in numbers if number not in old)
    named = {*_names(index, newest), *_names(index, oldest_kept)}
    for place in [*(live / SEGMENTS).list(), *(live / TOMBSTONES).list()]:
        digits = place.name.partition("-")[0]
        if not digits.isdigit() or place.name in named:
            continue
        first = int(digits)
        if (first == newest or first <= oldest_kept) and _remove(place):
            removed.append(place)
    for kind in (LISTS, TOMBSTONES):
        for path, _, time_ns in (live / kind).files():
            if path.endswith(".tmp") and time_ns < oldest:
                (live / kind / path.rpartition("/")[2]).delete()
    return [place.name for place in removed]


def _remove(place: Place) -> bool:
    """Remove a file or a directory; False where another removes it too, or a writer that has lost its number still
    writes there: then the next who cleans removes it."""
    try:
        place.delete()
    except StorageError:
        return False
    return True


def _names(index: Place, number: int) -> Iterator[str]:
    """What a list names; nothing where another has removed it meanwhile."""
    try:
        held = _read(index, number)
    except StorageError:
        if _list_place(index, number).exists():
            raise
        return
    for segment in held.segments:
        yield segment.name
        yield segment.tombstones


def _list_place(index: Place, number: int) -> Place:
    return live_place(index) / LISTS / f"{number:08d}.json"


def _numbers(index: Place) -> list[int]:
    names = [place.name for place in (live_place(index) / LISTS).list()]
    return sorted(int(name.removesuffix(".json")) for name in names if name.endswith(".json"))


def _read(index: Place, number: int) -> SegmentList:
    return SegmentList.model_validate_json(_list_place(index, number).read())


def _is(index: Place, new: SegmentList) -> bool:
    """Whether the file of this number is ours: the answer to its creation was lost on the way."""
    try:
        return _read(index, new.number).token == new.token
    except StorageError:
        return False
