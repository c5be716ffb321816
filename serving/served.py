"""What an application of parts serves: artifacts, the fingerprint of all that an answer depends on, and the layout,
which says which of its deployments holds which shards.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING

from pyarrow.fs import FileSelector

from cluster.artifact import Artifact
from cluster.errors import RecipeError
from pipelines import languages
from pipelines.encoder import EncoderConfig
from pipelines.fusion import Hybrid
from pipelines.indexes.base import SearchOptions
from pipelines.search import lang_of
from pipelines.segments.lists import newest_number
from pipelines.segments.parts import list_parts
from pipelines.segments.snapshot import Snapshot
from serving.catalog import ENCODER, Catalog, name_edition, take_fingerprint
from serving.messages import Info, LanguageInfo, Limits, RerankInfo, ShardInfo

if TYPE_CHECKING:
    from pipelines.recipe.tables import Rerank

SHARD = "shard-"  # what the name of a shard begins with; a deployment that holds one alone has its name
ZSTD_FACTOR = 3  # texts in memory are not compressed, as they are in an artifact


@dataclass(frozen=True)
class Served:
    """The artifacts behind one application. ``encoder`` is None where the index is searched with words; ``student`` is
    None where the encoder is a ready checkpoint."""

    recipe: str
    system: str
    index: Artifact
    docs: Mapping[str, Artifact]
    encoder: EncoderConfig | None = None
    student: Artifact | None = None
    options: SearchOptions = field(default_factory=SearchOptions)
    examples: tuple[str, ...] = ()
    passages: tuple[int, int] = (180, 90)  # length and stride of the windows in which documents were read
    hybrid: Hybrid | None = None  # how searches are fused with those of an index of words, served beside this
    rerank: "Rerank | None" = None  # what scores results again

    @cached_property
    def snapshot(self) -> Snapshot:
        """The index with what was added to it and without what was deleted, as it was when this was first asked for."""
        return Snapshot.newest(self.index.place, self.docs)

    @property
    def model(self) -> str | None:
        """The name of the student's artifact, or what identifies the ready checkpoint."""
        ready = self.encoder.model if self.encoder else None
        return self.student.name if self.student else (ready.content if ready else None)

    def fingerprint(self, limits: Limits) -> str:
        """The fingerprint of all that an answer depends on but the list of the index's segments, from names: no
        artifact needs to be there."""
        encoder = self.encoder.model_dump(mode="json") if self.encoder else None
        return take_fingerprint(
            {
                "served": [self.recipe, self.system, self.index.name, self.model, encoder],
                "docs": {lang: artifact.name for lang, artifact in self.docs.items()},
                "options": [self.options.model_dump(mode="json"), limits.model_dump(mode="json"), self.examples],
                "passages": self.passages,
                "stages": [stage.model_dump(mode="json") if stage else None for stage in (self.hybrid, self.rerank)],
                "software": version("babelray"),
            }
        )


@dataclass(frozen=True)
class Layout:
    """What an application serves, and the names of the shards that each of its deployments holds at its start."""

    served: Served
    limits: Limits
    fingerprint: str
    groups: Mapping[str, tuple[str, ...]]

    @classmethod
    def plan(cls, served: Served, limits: Limits, most_bytes: float, with_encoder: bool) -> "Layout":
        """Put shards that follow one another together, up to ``most_bytes`` of their files and texts, one at least.

        Where that is one group and ``with_encoder``, the encoder holds it.
        """
        groups: list[list[str]] = []
        room = 0.0
        for shard in describe_shards(served.snapshot):
            size = shard.bytes + shard.text_bytes
            if not groups or size > room:
                groups.append([])
                room = most_bytes
            groups[-1].append(shard.name)
            room -= size
        is_shared = with_encoder and served.encoder is not None and len(groups) == 1
        names = [ENCODER if is_shared else _name_group(number, group) for number, group in enumerate(groups)]
        named = dict(zip(names, map(tuple, groups), strict=True))
        return cls(replace(served), limits, served.fingerprint(limits), named)

    @property
    def is_shared(self) -> bool:
        """Whether the encoder holds the shards."""
        return ENCODER in self.groups

    def find_group(self, shard: str) -> str:
        """The deployment that holds a shard. One that was added later belongs to the last deployment with shards of its
        language, or else to the last of all."""
        named = [group for group, shards in self.groups.items() if shard in shards]
        lang = lang_of(shard)
        of_lang = [group for group, shards in self.groups.items() if lang in map(lang_of, shards)]
        return [*self.groups, *of_lang, *named][-1]

    def make_catalog(self) -> Catalog:
        """Describe the newest edition."""
        served = replace(self.served)  # which reads the newest list
        edition = name_edition(self.fingerprint, served.snapshot.state.number)
        info = describe(served, self.limits)
        shards = [shard.model_copy(update={"part": self.find_group(shard.name)}) for shard in info.shards]
        info = info.model_copy(update={"shards": shards})
        return Catalog(edition, info, served.encoder is not None)

    def find_newest(self) -> str:
        """The newest edition. Costs one listing of a directory."""
        return name_edition(self.fingerprint, newest_number(self.served.index.place))


def _name_group(number: int, shards: Sequence[str]) -> str:
    return shards[0] if len(shards) == 1 else f"shards-{number}"


def describe(served: Served, limits: Limits) -> Info:
    """What ``GET /info`` says. Raises StepError where the index, the student or a language's documents are missing."""
    for artifact in (served.index, served.student, *served.docs.values()):
        _ = artifact and artifact.manifest  # it is complete, or this raises and says what to run
    index = json.loads((served.index.place / "index.json").read())
    documents = served.snapshot.state.count()
    codes = served.snapshot.langs
    if missing := [code for code in codes if code not in served.docs]:
        raise RecipeError(f"expected documents for every language of {served.index.name}, got none for {missing}")
    return Info(
        recipe=served.recipe,
        system=served.system,
        model=served.model,
        index=served.index.name,
        kind=index["kind"],
        dim=index.get("dim"),
        languages=[
            LanguageInfo(
                code=code,
                name=languages.name(code),
                autonym=languages.autonym(code),
                dir="rtl" if languages.is_rtl(code) else "ltr",
                documents=documents[code],
            )
            for code in codes
        ],
        documents=sum(documents.values()),
        shards=describe_shards(served.snapshot),
        limits=limits,
        examples=list(served.examples),
        fields=served.snapshot.fields,
        hybrid=served.hybrid,
        rerank=RerankInfo.of(served.rerank) if served.rerank else None,
        passage_length=served.passages[0],
        passage_stride=served.passages[1],
        versions={"python": platform.python_version()} | {name: version(name) for name in ("babelray", "ray", "numpy")},
    )


def describe_shards(snapshot: Snapshot) -> list[ShardInfo]:
    """The shards of an index. The texts of a language are shared out by documents: a process reads those of what it
    found alone."""
    first = snapshot.state.segments[0]
    per_doc = {
        lang: ZSTD_FACTOR * _count_bytes(snapshot.docs_of(first.name, lang)) / max(1, docs)
        for lang, docs in first.docs.items()
    }
    return [
        ShardInfo(
            name=f"{SHARD}{part.name}",
            lang=part.lang,
            docs=part.docs,
            passages=part.passages,
            bytes=part.bytes,
            text_bytes=round(per_doc[part.lang] * part.docs),
        )
        for part in list_parts(snapshot)
    ]


def _count_bytes(artifact: Artifact) -> int:
    """Bytes of an artifact's files, by one listing."""
    filesystem, path = artifact.place.filesystem()
    return sum(file.size or 0 for file in filesystem.get_file_info(FileSelector(path)))
