"""The Serve applications: which deployments a recipe becomes, for ``python -m serving`` and for ``serve deploy``.

    babelray                 gateway: it stays, and sends users to one of
    babelray-<fingerprint>
      ├─ encoder             one model, queries in batches (none where the index is searched with words)
      └─ shard-<name> …      one deployment per shard of the index, each sized and healed on its own

What is served next comes up as another ``babelray-<fingerprint>`` beside the one that runs. A config file for
``serve deploy`` names ``serving.app:build_gateway`` and ``serving.app:build`` and gives them ``Scale`` and
``ServeArgs``; ``python -m serving RECIPE --print-config`` prints one.
"""

import json
import platform
from collections.abc import Mapping, Sequence
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
from pipelines.fusion import Hybrid
from pipelines.indexes.base import SearchOptions
from pipelines.segments.lists import newest_number
from pipelines.segments.parts import list_parts
from pipelines.segments.snapshot import Snapshot
from serving.access import OPEN_TO_ALL, Access
from serving.catalog import Catalog, take_fingerprint
from serving.encoder import Encoder
from serving.encoder_calls import ENCODER
from serving.gateway import Gateway
from serving.messages import Info, LanguageInfo, Limits, RerankInfo, ShardInfo
from serving.reranker import RERANKER, Reranker
from serving.shard import Shard

if TYPE_CHECKING:
    from pipelines.recipe import Recipe
    from pipelines.recipe.tables import Rerank

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


class GatewayArgs(_Settings):
    """What a config file may say of the gateways: who may ask, and what a replica takes, in logical CPUs."""

    access: Access = Access()
    cpus: float = Field(0.1, ge=0)


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
        """The fingerprint of all that an answer depends on, from names and the number of the index's newest list: no
        artifact needs to be there."""
        encoder = self.encoder.model_dump(mode="json") if self.encoder else None
        return take_fingerprint(
            {
                "served": [self.recipe, self.system, self.index.name, self.model, encoder],
                "docs": {lang: artifact.name for lang, artifact in self.docs.items()},
                "options": [self.options.model_dump(mode="json"), limits.model_dump(mode="json"), self.examples],
                "passages": self.passages,
                "stages": [stage.model_dump(mode="json") if stage else None for stage in (self.hybrid, self.rerank)],
                "list": newest_number(self.index.place),
                "software": version("babelray"),
            }
        )


def build(args: ServeArgs) -> Application:
    """The application of the parts for a recipe: what ``serve deploy`` calls."""
    return application(load(args), args.scale, args.limits)


def load(args: ServeArgs) -> Served:
    """What a recipe serves. Raises RecipeError for an unknown recipe or system, or where its data are not here."""
    from pipelines import recipe

    return find(recipe.load(args.recipe, args.overrides), args.system)


def build_gateway(args: GatewayArgs) -> Application:
    """The application of the gateways: what ``serve deploy`` calls; the config file says what they serve."""
    return gateway_application(Scale(cpus=args.cpus), [], args.access)


def gateway_application(scale: Scale, serves: Sequence[Sequence[str]], access: Access = OPEN_TO_ALL) -> Application:
    """The application of the gateways. ``serves`` names applications of parts for each slot, best first.

    Its version is that of the software and of who may ask: another ``serves`` reaches the gateways that run, which do
    not start anew.
    """
    gateway = _deploy(Gateway, "gateway", scale.gateways, num_cpus=scale.cpus).options(
        user_config={"serves": [list(names) for names in serves]}, max_surge_percent=100
    )
    asked_by = take_fingerprint(access.model_dump(mode="json"))
    return gateway.options(version=f"{version('babelray')}-{asked_by}", _internal=True).bind(access)


def find(recipe: "Recipe", system: str) -> Served:
    """The artifacts of a system of a recipe, on its first evaluation set. Raises RecipeError for an unknown system."""
    from pipelines.plan import encoder_of, plan
    from pipelines.plan.systems import find_stages

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
        examples=recipe.examples,
        passages=(recipe.passage_length, recipe.passage_stride),
        **find_stages(planned.recipe, planned.systems, chosen, root),
    )


def application(served: Served, scale: Scale | None = None, limits: Limits | None = None) -> Application:
    """Bind the parts to the artifacts. Raises StepError where one is not complete.

    The root is the encoder, or a shard where there is none: no process does nothing but hold the others together.
    """
    scale, limits = scale or Scale(), limits or Limits()
    about, fingerprint = describe(served, limits), served.fingerprint(limits)
    catalog = Catalog(fingerprint, about, served.options, served.examples, has_encoder=served.encoder is not None)
    parts = {f"{SHARD}{part.name}": part for part in list_parts(served.snapshot)}
    shards = [
        (
            _deploy(
                Shard, shard.name, scale.shard_replicas, num_cpus=scale.cpus, memory=shard.bytes + shard.text_bytes
            ),
            (served.snapshot, parts[shard.name]),
        )
        for shard in about.shards
    ]
    others: list[Application] = []
    if served.rerank:
        reranker = _deploy(Reranker, RERANKER, scale.encoders, num_cpus=scale.cpus, num_gpus=scale.encoder_gpus)
        others = [reranker.bind(fingerprint, served.rerank.scorer, scale.encoder_gpus)]
    if served.encoder:
        encoder = _deploy(Encoder, ENCODER, scale.encoders, num_cpus=scale.cpus, num_gpus=scale.encoder_gpus)
        others += [shard.bind(fingerprint, files) for shard, files in shards]
        return encoder.bind(catalog, served.encoder, served.student, scale.encoder_gpus, others)
    (root, root_files), *rest = shards
    others += [shard.bind(fingerprint, files) for shard, files in rest]
    return root.bind(fingerprint, root_files, catalog, others)


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
        examples=list(served.examples),
        hybrid=served.hybrid,
        rerank=RerankInfo.of(served.rerank) if served.rerank else None,
        passage_length=served.passages[0],
        passage_stride=served.passages[1],
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
