"""The Serve applications: which deployments a recipe becomes, for ``python -m serving`` and for ``serve deploy``.

    babelray                 gateway: it stays, and sends users to
    babelray-<fingerprint>   one for each system that is served
      ├─ encoder             one model, queries in batches (none where the index is searched with words)
      ├─ shards-<number> …   groups of the shards of the index, each sized and healed on its own
      └─ reranker            what scores results again, where the recipe says so

Where one replica of each is wanted and all shards fit one, the encoder holds them, and a search is one call.

What is served next comes up as another ``babelray-<fingerprint>`` beside the one that runs. A config file for
``serve deploy`` names ``serving.app:build_gateway`` and ``serving.app:build`` and gives them ``Scale`` and
``ServeArgs``; ``python -m serving RECIPE --print-config`` prints one.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application, Deployment

from cluster.errors import RecipeError
from cluster.storage import Place
from serving.access import OPEN_TO_ALL, Access
from serving.catalog import ENCODER, RERANKER, take_fingerprint
from serving.encoder import Encoder
from serving.gateway import Gateway
from serving.messages import Limits
from serving.reranker import Reranker
from serving.served import Layout, Served, describe
from serving.shard import Shards

if TYPE_CHECKING:
    from pipelines.recipe import Recipe

NAME = "babelray"
HEALTH_CHECK_S = 2  # how soon a dead replica is known to be one; Serve's default is 10


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scale(_Settings):
    """How many replicas of each deployment, and what each takes.

    Shards that follow one another share a replica, up to ``shard_gb`` gigabytes of their files and texts. Where that is
    all of them, and one replica is wanted and no GPU, the encoder holds them. Several replicas of the same shards stand
    on different nodes. ``cpus`` are Ray's logical ones: they place replicas and hold back no thread. A group of shards
    also reserves as memory its bytes and those of its texts, so that a node gets no more than it can map.
    """

    gateways: int = Field(1, ge=1)
    encoders: int = Field(1, ge=1)
    encoder_gpus: float = Field(0, ge=0)
    shard_replicas: int = Field(1, ge=1)
    shard_gb: float = Field(4, gt=0)
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

    The root is the encoder, or a group of shards where there is none: no process does nothing but hold the others
    together.
    """
    scale, limits = scale or Scale(), limits or Limits()
    about = describe(served, limits)
    is_small = scale.encoders == scale.shard_replicas == 1 and not scale.encoder_gpus
    layout = Layout.plan(served, limits, scale.shard_gb * 1e9, with_encoder=is_small)
    sizes = {shard.name: shard.bytes + shard.text_bytes for shard in about.shards}
    memory = {name: sum(sizes[shard] for shard in shards) for name, shards in layout.groups.items()}
    groups = {
        name: _deploy(Shards, name, scale.shard_replicas, num_cpus=scale.cpus, memory=memory[name])
        for name in layout.groups
        if name != ENCODER
    }
    others = [group.bind(layout, name) for name, group in groups.items()]
    if served.rerank:
        reranker = _deploy(Reranker, RERANKER, scale.encoders, num_cpus=scale.cpus, num_gpus=scale.encoder_gpus)
        others.append(reranker.bind(layout, scale.encoder_gpus))
    if served.encoder:
        takes = {"num_cpus": scale.cpus, "num_gpus": scale.encoder_gpus, "memory": memory.get(ENCODER, 0)}
        encoder = _deploy(Encoder, ENCODER, scale.encoders, **takes)
        return encoder.bind(layout, scale.encoder_gpus, others)
    name, root = next(iter(groups.items()))
    return root.bind(layout, name, others[1:])


def _deploy(part: type[Any], name: str, replicas: int, **takes: float) -> Deployment:
    """A deployment of one of the four classes; ``takes`` is what a replica of it takes, in Ray's resources.

    Replicas of shards stand on different nodes, so that the loss of one leaves the others.
    """
    deployment = serve.deployment(
        name=name,
        num_replicas=replicas,
        max_ongoing_requests=part.ONGOING,
        health_check_period_s=HEALTH_CHECK_S,
        ray_actor_options=takes,
    )(part)
    return deployment.options(max_replicas_per_node=1) if part is Shards and replicas > 1 else deployment
