"""The parts in which an index is searched side by side, one process each: the shards of its first segment one by one,
and of each language what was added since as one more."""

from dataclasses import dataclass

from pipelines.filters.subset import Selector
from pipelines.indexes.base import ShardGroup
from pipelines.segments.snapshot import SegmentDocs, Shard, Snapshot

ADDED = "added"


@dataclass(frozen=True)
class SearchPart:
    """Some shards of a language: its name, ``<lang>-<number>`` or ``<lang>-added``, and what is in it. Documents that
    are dead are counted with the others."""

    name: str
    lang: str
    shards: tuple[Shard, ...]

    @property
    def docs(self) -> int:
        """Documents."""
        return sum(shard.facts["docs"] for shard in self.shards)

    @property
    def passages(self) -> int:
        """Passages; of an index of words its documents."""
        return sum(shard.facts.get("passages") or shard.facts["docs"] for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Bytes of the shards' files."""
        return sum(shard.facts["bytes"] for shard in self.shards)

    def open(self, snapshot: Snapshot) -> ShardGroup:
        """Open its shards, to be searched as one with their share of the depth."""
        return snapshot.open(self.lang, [shard.name for shard in self.shards])

    def open_selector(self, snapshot: Snapshot, group: ShardGroup, docs: SegmentDocs) -> Selector:
        """What finds the documents of a subset among its own, given its opened shards and texts."""
        return snapshot.select_from(group, docs, [shard.name for shard in self.shards])

    def open_docs(self, snapshot: Snapshot) -> SegmentDocs:
        """Open the texts of its segments."""
        return snapshot.open_docs(self.lang, {shard.segment for shard in self.shards})


def list_parts(snapshot: Snapshot) -> list[SearchPart]:
    """The parts of an index, language by language."""
    first = snapshot.state.segments[0].name
    parts = []
    for lang in snapshot.langs:
        shards = snapshot.of_lang(lang)
        parts += [SearchPart(s.facts["name"], lang, (s,)) for s in shards if s.segment == first]
        if added := tuple(shard for shard in shards if shard.segment != first):
            parts.append(SearchPart(f"{lang}-{ADDED}", lang, added))
    return parts
