"""Growing an index: add documents, delete them, compact its segments. Each makes one new list, or changes nothing.

A writer builds what the next list is to name, then commits it. When another writer was faster, it compares its
documents with the newest list and tries again; what it has built it builds anew only where other documents are to be
added now. Cost of an ``add``: encoding and indexing its documents, a look-up of each id in each segment, and a copy of
the dead ids of the segments in which documents were replaced.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.artifact import Artifact, read_part, write_part
from cluster.errors import StorageError
from cluster.storage import Place
from pipelines.filters.fields import METADATA
from pipelines.segments.build import Built, Encode, build_merged, build_new
from pipelines.segments.drift import measure_cosine
from pipelines.segments.lists import SEGMENTS, TOMBSTONES, Segment, SegmentList, clean, commit, live_place, newest_list
from pipelines.segments.snapshot import TOMBSTONE_SCHEMA, Snapshot

log = logging.getLogger("babelray")
BATCH = 1024  # documents encoded between two reports of progress
Dead = dict[str, dict[str, list[str]]]  # segment → language → ids
Progress = Callable[[int, int], None]


@dataclass
class Change:
    """What a verb did. ``number`` is that of the list that it made, or of the newest where it changed nothing.

    ``left_out`` names documents that could not be encoded, as ``<lang>:<id>``, by the reason: what there was of them
    stays. ``cosines`` says by language how near new vectors lie to their cells, and how near the first did.
    """

    number: int
    documents: dict[str, int]
    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    deleted: int = 0
    absent: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    cosines: dict[str, dict[str, float]] = field(default_factory=dict)
    merged: int = 0


@dataclass(frozen=True)
class GrowingIndex:
    """An index artifact and what it takes to add to it.

    Attributes:
        docs: the DOCS artifacts of its documents, by language.
        open_encoders: opens, for each language, what maps DOCS to VECTORS; asked for when there is something to encode.
        vectors: parts of the VECTORS that the artifact was built from, by language: what drift is measured against.
        shard_rows: documents of a shard at most.
    """

    index: Place
    docs: Mapping[str, Artifact]
    open_encoders: Callable[[], Mapping[str, Encode]] = dict
    vectors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shard_rows: int = 100_000

    def snapshot(self) -> Snapshot:
        """The index as it is now."""
        return Snapshot.newest(self.index, self.docs)

    def add(self, parts: Mapping[str, Sequence[Place]], progress: Progress = lambda done, of: None) -> Change:
        """Add the documents of parts of DOCS by language, ids unique in a language. A document whose title, text and
        metadata are there already is passed over; one of the same id in which they are others is replaced.

        Raises:
            StepError: the encoder is not that of the index. Nothing is changed then.
        """
        with TemporaryDirectory() as temp:
            compared: _Compared | None = None
            while True:
                snapshot, before = self.snapshot(), compared
                compared = _compare(snapshot, parts)
                if not compared.count:
                    return _unchanged(snapshot.state, unchanged=compared.unchanged)
                if before is None or not compared.takes_the_same(before):
                    scratch = Path(temp) / str(snapshot.state.number)
                    built = self._build(compared, parts, scratch, progress)
                    cosines = self._measure(snapshot.state, built)
                change = self._commit_addition(snapshot, compared, built, cosines)
                if change:
                    return change

    def delete(self, ids: Sequence[str], langs: Sequence[str] = ()) -> Change:
        """Delete the documents with these ids in some languages, or in all. Ids that none of them has are returned as
        ``absent``; the others are deleted all the same."""
        change = None
        while change is None:
            change = self._delete(self.snapshot(), list(dict.fromkeys(ids)), list(dict.fromkeys(langs)))
        return change

    def compact(self) -> Change:
        """Put all that is not dead into one segment."""
        change = None
        while change is None:
            change = self._compact(self.snapshot())
        return change

    def _delete(self, snapshot: Snapshot, ids: Sequence[str], langs: Sequence[str]) -> Change | None:
        dead: Dead = {}
        found: set[str] = set()
        for lang in langs or snapshot.langs:
            for doc_id, segment in _find_living(snapshot, lang, ids):
                dead.setdefault(segment, {}).setdefault(lang, []).append(doc_id)
                found.add(doc_id)
        absent = [doc_id for doc_id in ids if doc_id not in found]
        if not found:
            return _unchanged(snapshot.state, absent=absent)
        deleted = sum(len(some) for by_lang in dead.values() for some in by_lang.values())
        facts = {"verb": "delete", "deleted": deleted}
        new = self._commit(snapshot.state, lambda: {"segments": _bury(snapshot, dead), "facts": facts})
        return Change(new.number, new.count(), deleted=deleted, absent=absent) if new else None

    def _compact(self, snapshot: Snapshot) -> Change | None:
        state = snapshot.state
        if len(state.segments) == 1 and not any(state.segments[0].dead.values()):
            clean(self.index)
            return _unchanged(state)
        facts = {"verb": "compact", "segments": len(state.segments)}
        with TemporaryDirectory() as temp:
            built = build_merged(snapshot, self.shard_rows, Path(temp))
            new = self._commit(state, lambda: {"segments": (_put(self.index, state, built),), "facts": facts})
        return Change(new.number, new.count(), merged=len(state.segments)) if new else None

    def _commit(self, state: SegmentList, write: Callable[[], dict[str, Any]]) -> SegmentList | None:
        """Write what the list after ``state`` is to name, and make that list the newest; None where another writer was
        faster. Such a one may have removed what was being written, under a number that is now taken."""
        try:
            new = state.follow(**write())
        except (OSError, StorageError):
            if newest_list(self.index).number > state.number:
                return None
            raise
        if not commit(self.index, new):
            return None
        try:
            clean(self.index)
        except StorageError as error:
            log.warning("%s: what no list names any more was not removed: %s", self.index.name, error)
        return new

    def _build(
        self, compared: "_Compared", parts: Mapping[str, Sequence[Place]], scratch: Path, progress: Progress
    ) -> Built:
        done = 0

        def read(lang: str) -> Iterator[pa.Table]:
            nonlocal done
            for part, mask in zip(parts[lang], compared.masks[lang], strict=True):
                rows = read_part(part).filter(pa.array(mask))
                for first in range(0, len(rows), BATCH):
                    yield rows.slice(first, BATCH)
                    done += len(rows.slice(first, BATCH))
                    progress(done, compared.count)

        rows = {lang: read(lang) for lang, masks in compared.masks.items() if any(mask.any() for mask in masks)}
        return build_new(self.index, rows, self.open_encoders(), self.shard_rows, scratch)

    def _measure(self, state: SegmentList, built: Built) -> dict[str, dict[str, float]]:
        """Of each language the mean cosine of the new vectors to their cells, and that of the first ones."""
        cosines = {}
        for lang, parts in built.vectors.items():
            new = measure_cosine(self.index, parts)
            first = state.cosines.get(lang)
            if new is not None and first is None and all(Place(p).exists() for p in self.vectors.get(lang, [])):
                first = measure_cosine(self.index, self.vectors.get(lang, []))
            if new is not None and first is not None:
                cosines[lang] = {"new": new, "first": first}
        return cosines

    def _commit_addition(
        self, snapshot: Snapshot, compared: "_Compared", built: Built, cosines: dict[str, dict[str, float]]
    ) -> Change | None:
        left_out = {name for names in built.left_out.values() for name in names}
        dead = {
            segment: {lang: [i for i in ids if f"{lang}:{i}" not in left_out] for lang, ids in by_lang.items()}
            for segment, by_lang in compared.replaced.items()
        }
        replaced = sum(len(ids) for by_lang in dead.values() for ids in by_lang.values())
        added = sum(built.docs.values()) - replaced
        if not built.docs:
            return _unchanged(snapshot.state, unchanged=compared.unchanged, left_out=built.left_out)

        def write() -> dict[str, Any]:
            segments = (*_bury(snapshot, dead), _put(self.index, snapshot.state, built))
            first = snapshot.state.cosines | {lang: cosine["first"] for lang, cosine in cosines.items()}
            facts = {"verb": "add", "added": added, "replaced": replaced, "cosines": cosines}
            return {"segments": segments, "facts": facts, "cosines": first}

        new = self._commit(snapshot.state, write)
        if new is None:
            return None
        change = Change(new.number, new.count(), added, replaced, compared.unchanged)
        return replace(change, left_out=built.left_out, cosines=cosines)


@dataclass
class _Compared:
    """Documents beside a snapshot: which are to be added, by language and part, and what they replace."""

    masks: dict[str, list[np.ndarray]] = field(default_factory=dict)
    replaced: Dead = field(default_factory=dict)
    unchanged: int = 0

    @property
    def count(self) -> int:
        """How many documents are to be added."""
        return sum(int(mask.sum()) for masks in self.masks.values() for mask in masks)

    def takes_the_same(self, other: "_Compared") -> bool:
        """Whether the same documents are to be added."""
        pairs = ((masks, other.masks[lang]) for lang, masks in self.masks.items())
        return all(np.array_equal(a, b) for mine, others in pairs for a, b in zip(mine, others, strict=True))


def _compare(snapshot: Snapshot, parts: Mapping[str, Sequence[Place]]) -> _Compared:
    compared = _Compared()
    for lang, places in parts.items():
        snapshot.of_lang(lang)  # raises where the index has no such language
        docs, dead = snapshot.open_docs(lang), _dead_sets(snapshot, lang)
        for place in places:
            rows = read_part(place).to_pylist()
            mask = np.ones(len(rows), bool)
            for number, found in enumerate(docs.find([row["doc_id"] for row in rows])):
                row = rows[number]
                if found is None or row["doc_id"] in dead[found[0]]:
                    continue
                there = docs.stores[found[0]].row_at(found[1])
                if all((there.get(name) or "") == (row.get(name) or "") for name in ("title", "text", METADATA)):
                    mask[number] = False
                    compared.unchanged += 1
                else:
                    compared.replaced.setdefault(found[0], {}).setdefault(lang, []).append(row["doc_id"])
            compared.masks.setdefault(lang, []).append(mask)
    return compared


def _find_living(snapshot: Snapshot, lang: str, ids: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Those of the ids that a language has, and the segment of each."""
    dead = _dead_sets(snapshot, lang)
    for doc_id, found in zip(ids, snapshot.open_docs(lang).find(ids), strict=True):
        if found is not None and doc_id not in dead[found[0]]:
            yield doc_id, found[0]


def _dead_sets(snapshot: Snapshot, lang: str) -> dict[str, set[str]]:
    return {segment.name: set(snapshot.read_dead(segment).get(lang, [])) for segment in snapshot.state.segments}


def _bury(snapshot: Snapshot, dead: Dead) -> tuple[Segment, ...]:
    """The segments of a snapshot with more dead documents: their tombstones are written anew."""
    segments = []
    for segment in snapshot.state.segments:
        new = {lang: ids for lang, ids in dead.get(segment.name, {}).items() if ids}
        if new:
            all_dead = snapshot.read_dead(segment)
            for lang, ids in new.items():
                all_dead.setdefault(lang, []).extend(ids)
            pairs = [(lang, doc_id) for lang, ids in sorted(all_dead.items()) for doc_id in ids]
            columns = [list(column) for column in zip(*pairs, strict=True)]
            file = f"{snapshot.state.next_id()}.parquet"
            write_part(live_place(snapshot.index) / TOMBSTONES / file, pa.table(columns, schema=TOMBSTONE_SCHEMA))
            counts = {lang: len(ids) for lang, ids in all_dead.items()}
            segment = segment.model_copy(update={"dead": counts, "tombstones": file})
        segments.append(segment)
    return tuple(segments)


def _put(index: Place, state: SegmentList, built: Built) -> Segment:
    """Copy a segment to its place, under an id that the next list alone may be the first to name."""
    name = state.next_id()
    (live_place(index) / SEGMENTS / name).put(built.directory)
    return Segment(name=name, docs=built.docs)


def _unchanged(state: SegmentList, **counts: Any) -> Change:
    return Change(state.number, state.count(), **counts)
