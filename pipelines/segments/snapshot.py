"""An index as one list has it: its shards and tombstones opened to be searched as one, and its texts.

Opening takes what the shards take, and a look-up of each document's id among the tombstones of its segment.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.artifact import Artifact, read_part, read_schema
from cluster.errors import StepError
from cluster.storage import Place
from pipelines.docstore import Docstore
from pipelines.filters.fields import FieldType, find_types
from pipelines.filters.subset import Selector
from pipelines.ids import hash_ids
from pipelines.indexes import open_group
from pipelines.indexes.base import ShardGroup
from pipelines.segments.lists import (
    BASE,
    SEGMENTS,
    TOMBSTONES,
    Segment,
    SegmentList,
    live_place,
    newest_list,
    read_list,
)

TOMBSTONE_SCHEMA = pa.schema([("lang", pa.string()), ("doc_id", pa.string())])


@dataclass(frozen=True)
class Shard:
    """A shard of a segment: where it is, and its entry in ``index.json``."""

    segment: str
    place: Place
    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        """``<lang>-<number>`` of the artifact, ``<lang>-<number>@<segment>`` of a later segment."""
        return str(self.facts["name"]) + ("" if self.segment == BASE else f"@{self.segment}")


@dataclass(frozen=True)
class Snapshot:
    """An index artifact, the DOCS artifacts of its documents by language, and a list of its segments."""

    index: Place
    docs: Mapping[str, Artifact]
    state: SegmentList

    @classmethod
    def newest(cls, index: Place, docs: Mapping[str, Artifact]) -> "Snapshot":
        """The index as it is now."""
        return cls(index, docs, newest_list(index))

    @classmethod
    def at(cls, index: Place, docs: Mapping[str, Artifact], number: int) -> "Snapshot":
        """The index as the list of this number has it. Raises StorageError where the list was removed."""
        return cls(index, docs, read_list(index, number))

    @cached_property
    def shards(self) -> list[Shard]:
        """The shards of all segments, oldest first."""
        found = []
        for segment in self.state.segments:
            place = self.place(segment.name)
            listed = json.loads((place / "index.json").read())["shards"]
            found += [Shard(segment.name, place / "shards" / facts["name"], facts) for facts in listed]
        return found

    @property
    def langs(self) -> list[str]:
        """The languages of the index."""
        return sorted(self.state.count())

    def place(self, segment: str) -> Place:
        """Where a segment is."""
        return self.index if segment == BASE else live_place(self.index) / SEGMENTS / segment

    def of_lang(self, lang: str) -> list[Shard]:
        """The shards of a language. Raises StepError when the index holds no such language."""
        if found := [shard for shard in self.shards if shard.facts["lang"] == lang]:
            return found
        raise StepError(f"the index holds {self.langs}, not {lang!r}: search one of those")

    def open(self, lang: str, names: Collection[str] | None = None) -> ShardGroup:
        """Open the shards of a language, or those of them with these names, to be searched as one."""
        of_lang = self.of_lang(lang)
        shards = [shard for shard in of_lang if names is None or shard.name in names]
        share = sum(s.facts["docs"] for s in shards) / max(1, sum(s.facts["docs"] for s in of_lang))
        levels = json.loads((self.index / "index.json").read()).get("levels", {}).get(lang, ())
        group = open_group([shard.place.fetch() for shard in shards], share, levels)
        dead = {segment.name: self.read_dead(segment).get(lang, []) for segment in self.state.segments}
        if any(dead[shard.segment] for shard in shards):
            group.hide([pa.array(dead[shard.segment], pa.large_string()) for shard in shards])
        return group

    def open_docs(self, lang: str, segments: Collection[str] | None = None) -> "SegmentDocs":
        """Open the texts of a language, of all segments or of those with these names."""
        chosen = [s for s in self.state.segments if s.docs.get(lang) and (segments is None or s.name in segments)]
        return SegmentDocs({s.name: Docstore.open(self.docs_of(s.name, lang)) for s in reversed(chosen)})

    def select_from(self, group: ShardGroup, docs: "SegmentDocs", names: Collection[str] | None = None) -> Selector:
        """What finds the documents of a subset in a group that ``open`` opened with these names, given its texts."""
        shards = [shard for shard in self.of_lang(group.lang) if names is None or shard.name in names]
        return Selector(group.docs, [docs.stores.get(shard.segment) for shard in shards])

    @cached_property
    def fields(self) -> dict[str, FieldType]:
        """The fields of the documents' metadata, and their types."""
        parts = [artifact.parts[0] for artifact in self.docs.values() if artifact.parts]
        return {name: kind for part in parts for name, kind in find_types(read_schema(part)).items()}

    def docs_of(self, segment: str, lang: str) -> Artifact:
        """The DOCS of a segment in a language."""
        return self.docs[lang] if segment == BASE else Artifact(self.place(segment) / "docs" / lang)

    def read_dead(self, segment: Segment) -> dict[str, list[str]]:
        """The ids of a segment's dead documents by language."""
        if not segment.tombstones:
            return {}
        rows = read_part(live_place(self.index) / TOMBSTONES / segment.tombstones)
        dead: dict[str, list[str]] = {}
        for lang, doc_id in zip(rows["lang"].to_pylist(), rows["doc_id"].to_pylist(), strict=True):
            dead.setdefault(lang, []).append(doc_id)
        return dead


class SegmentDocs:
    """The texts of several segments, newest first: of an id the text that was given last."""

    def __init__(self, stores: Mapping[str, Docstore]):
        self.stores = stores

    def find(self, ids: Sequence[str]) -> Iterator[tuple[str, int] | None]:
        """For each id the newest segment that has it, dead or not, and its position there; None where none has it."""
        hashed = hash_ids(ids)
        segments = np.full(len(ids), -1)
        positions = np.full(len(ids), -1, np.int64)
        for number, store in enumerate(self.stores.values()):
            left = np.flatnonzero(segments < 0)
            found = store.positions([ids[i] for i in left.tolist()], hashed[left])
            here = left[found >= 0]
            segments[here], positions[here] = number, found[found >= 0]
        names = list(self.stores)
        for number, position in zip(segments.tolist(), positions.tolist(), strict=True):
            yield None if number < 0 else (names[number], position)

    def row(self, doc_id: str) -> dict[str, Any]:
        """The row with this id. Raises StepError where no segment has it."""
        return next(self.rows([doc_id]))

    def rows(self, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The rows with these ids, in their order. Raises StepError for an id that no segment has."""
        for doc_id, found in zip(ids, self.find(ids), strict=True):
            if found is None:
                raise StepError(
                    f"no text of {doc_id!r} in the index's segments: the list and its segments do not belong together"
                )
            segment, position = found
            yield self.stores[segment].row_at(position)
