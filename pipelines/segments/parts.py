"""The parts in which an index is searched side by side, one process each: the shards of its first segment one by one,
and of each language what was added since as one more."""

from dataclasses import dataclass

from pipelines.segments.snapshot import Shard, Snapshot

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
