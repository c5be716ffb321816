"""The Serve application: which deployments a recipe becomes, for ``python -m serving`` and for ``serve deploy``.

    gateway ─┬─ encoder              one model, queries in batches (none where the index is searched with words)
             └─ shard-<name> …       one deployment per shard of the index, each sized, healed and rolled on its own

A config file for ``serve deploy`` names ``serving.app:build`` and gives it ``ServeArgs``:

    applications:
      - name: babelray
        import_path: serving.app:build
        args: {recipe: atlas, overrides: [root=s3://bucket/runs], scale: {shard_replicas: 2}}
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pyarrow.fs import FileSelector
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application, Deployment

from cluster.artifact import Artifact
from cluster.errors import RecipeError
from cluster.storage import Place
from pipelines import languages
from pipelines.encoder import EncoderConfig
from pipelines.indexes.base import SearchOptions
from pipelines.segments.parts import list_parts
from pipelines.segments.snapshot import Snapshot
from serving.encoder import Encoder
from serving.gateway import Gateway
from serving.messages import Info, LanguageInfo, Limits, ShardInfo
from serving.shard import Shard

if TYPE_CHECKING:
    from pipelines.recipe import Recipe

NAME = "babelray"
SHARD = "shard-"  # what the name of a shard's deployment begins with
HEALTH_CHECK_S = 2  # how soon a dead replica is known to be one; Serve's default is 10
ZSTD_FACTOR = 3  # texts in memory are not compressed, as they are in an artifact


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scale(_Settings):
    """How many replicas of each deployment, and what each takes.

    ``cpus`` are Ray's logical ones: they place replicas and hold back no thread. The small default lets a laptop of two
    cores serve a dozen shards. A shard also reserves as memory its bytes and those of its texts, so that a node gets no
    more than it can map.
    """

    gateways: int = Field(1, ge=1)
    encoders: int = Field(1, ge=1)
    encoder_gpus: float = Field(0, ge=0)
    shard_replicas: int = Field(1, ge=1)
    cpus: float = Field(0.1, ge=0)


class ServeArgs(_Settings):
    """What a config file may say: the recipe and its overrides, which of its systems, how large, and the limits."""

    recipe: str
    overrides: list[str] = []
    system: str = "student"
    scale: Scale = Scale()
    limits: Limits = Limits()


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

    @cached_property
    def snapshot(self) -> Snapshot:
        """The index with what was added to it and without what was deleted, as it was when this was first asked for."""
        return Snapshot.newest(self.index.place, self.docs)

    @property
    def model(self) -> str | None:
        """The name of the student's artifact, or what identifies the ready checkpoint."""
        ready = self.encoder.model if self.encoder else None
        return self.student.name if self.student else (ready.content if ready else None)


def build(args: ServeArgs) -> Application:
    """The application for a recipe: what ``serve deploy`` calls."""
    from pipelines import recipe

    return application(find(recipe.load(args.recipe, args.overrides), args.system), args.scale, args.limits)


def find(recipe: "Recipe", system: str) -> Served:
    """The artifacts of a system of a recipe, on its first evaluation set. Raises RecipeError for an unknown system."""
    from pipelines.plan import encoder_of, plan

    planned, root = plan(recipe).check_data(), Place.of(recipe.root)
    name, collection = next(iter(planned.collections.items()), (None, None))
    if collection is None:
        raise RecipeError(f"recipe {recipe.name} indexes nothing: add a table [evaluate.NAME]")
    indexes = {of: step for (on, of), step in planned.indexes.items() if on == name}
    if system not in indexes:
        raise RecipeError(f"recipe {recipe.name} has the systems {', '.join(indexes)}, not {system!r}")
    chosen = planned.systems[system]
    reads_text = chosen.index is not None and chosen.index.kind == "bm25"
    return Served(
        recipe=recipe.name,
        system=system,
        index=indexes[system].artifact(root),
        docs={lang: step.artifact(root) for lang, step in collection.docs.items()},
        encoder=None if reads_text else encoder_of(planned.recipe, chosen),
        student=chosen.student.artifact(root) if chosen.student else None,
        options=recipe.search,
    )


def application(served: Served, scale: Scale | None = None, limits: Limits | None = None) -> Application:
    """Bind the deployments to the artifacts. Raises StepError where one is not complete."""
    scale, limits = scale or Scale(), limits or Limits()
    about = describe(served, limits)
    parts = {f"{SHARD}{part.name}": part for part in list_parts(served.snapshot)}
    shards = {
        shard.name: _deploy(
            Shard, shard.name, scale.shard_replicas, num_cpus=scale.cpus, memory=shard.bytes + shard.text_bytes
        ).bind(served.snapshot, parts[shard.name])
        for shard in about.shards
    }
    encoder = None
    if served.encoder:
        encoder = _deploy(Encoder, "encoder", scale.encoders, num_cpus=scale.cpus, num_gpus=scale.encoder_gpus).bind(
            served.encoder, served.student, scale.encoder_gpus
        )
    gateway = _deploy(Gateway, "gateway", scale.gateways, num_cpus=scale.cpus)
    return gateway.bind(about, served.options, shards, encoder)


def _deploy(part: type[Any], name: str, replicas: int, **takes: float) -> Deployment:
    """A deployment of one of the three classes; ``takes`` is what a replica of it takes, in Ray's resources."""
    return serve.deployment(
        name=name,
        num_replicas=replicas,
        max_ongoing_requests=part.ONGOING,
        health_check_period_s=HEALTH_CHECK_S,
        ray_actor_options=takes,
    )(part)


def describe(served: Served, limits: Limits) -> Info:
    """What ``GET /info`` says. Raises StepError where the index, the student or a language's documents are missing."""
    for artifact in (served.index, served.student, *served.docs.values()):
        _ = artifact and artifact.manifest  # it is complete, or this raises and says what to run
    index = json.loads((served.index.place / "index.json").read())
    documents = served.snapshot.state.count()
    codes = served.snapshot.langs
    if missing := [code for code in codes if code not in served.docs]:
        raise RecipeError(f"expected documents for every language of {served.index.name}, got none for {missing}")
    shards = _shards(served.snapshot)
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
        shards=shards,
        limits=limits,
        versions={"python": platform.python_version()} | {name: version(name) for name in ("babelray", "ray", "numpy")},
    )


def _shards(snapshot: Snapshot) -> list[ShardInfo]:
    """The parts of an index. The texts of a language are shared out by documents, since a part is asked for its own
    alone."""
    parts = list_parts(snapshot)
    first = snapshot.state.segments[0]
    per_doc = {
        lang: ZSTD_FACTOR * _bytes(snapshot.docs_of(first.name, lang)) / max(1, docs)
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
        for part in parts
    ]


def _bytes(artifact: Artifact) -> int:
    """Bytes of an artifact's files, by one listing."""
    filesystem, path = artifact.place.filesystem()
    return sum(file.size or 0 for file in filesystem.get_file_info(FileSelector(path)))


def config(args: ServeArgs, host: str, port: int) -> dict[str, Any]:
    """The config file for ``serve deploy`` that serves this."""
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": host, "port": port},
        "applications": [
            {
                "name": NAME,
                "route_prefix": "/",
                "import_path": "serving.app:build",
                "args": args.model_dump(exclude_defaults=True),
            }
        ],
    }
