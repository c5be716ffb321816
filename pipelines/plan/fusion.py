"""Systems that fuse others: which steps they become, and how the server's fusion follows from a recipe.

A fused system reads the rankings of its members in every language of a collection. Weights that are to be learnt are
learnt once for a recipe: its members search the documents of ``validate_split`` with the questions of that split.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cluster.artifact import Artifact
from cluster.errors import RecipeError
from cluster.step import Step
from cluster.storage import Place
from pipelines.fuse import Fuse, FuseConfig, LearnConfig, learn_weights, with_learnt
from pipelines.fusion import Fusion, Hybrid, LearntFusion
from pipelines.plan.steps import Collection, make_step, plan_collection
from pipelines.recipe import EvaluationSet, Recipe
from pipelines.tables import RANKINGS

if TYPE_CHECKING:
    from pipelines.plan.systems import Searched, System

SearchWith = Callable[[Mapping[str, "System"], Collection], "dict[str, Searched]"]


def plan_fused(
    recipe: Recipe, system: "System", searches: Mapping[str, "Searched"], weights: Step | None
) -> dict[str, Step]:
    """Rankings by language of a system that fuses others, of which ``searches`` has the rankings."""
    members = {name: searches[name].rankings for name in system.fuse}
    tables = tuple((name, lang) for name, rankings in members.items() for lang in rankings)
    inputs = {"rankings": members} | ({"weights": weights} if weights else {})
    rows = tuple(f"rankings.{name}.{lang}" for name, lang in tables)
    steps = {}
    for lang in members[system.fuse[0]]:
        config = FuseConfig(lang=lang, tables=tables, fusion=to_fusion(system.fusion), k=recipe.search.k)
        steps[lang] = make_step(
            recipe, "search", f"fuse-{system.name}-{lang}", Fuse, config, inputs, table=RANKINGS, rows=rows
        )
    return steps


def plan_weights(recipe: Recipe, systems: Mapping[str, "System"], system: "System", search: SearchWith) -> Step | None:
    """The step that learns the weights of a system on the dev questions; None where they are given. ``search`` plans
    the searches of some systems in a collection."""
    if not system.fusion.learn:
        return None
    assert recipe.validate_split  # the recipe is refused without it
    dev = plan_collection(recipe, EvaluationSet(split=recipe.validate_split), recipe.languages.main_query)
    searches = search({name: systems[name] for name in list_members(systems, system.fuse)}, dev)
    members = {name: searches[name].rankings for name in system.fuse}
    tables = tuple((name, lang) for name, rankings in members.items() for lang in rankings)
    config = LearnConfig(tables=tables, fusion=to_fusion(system.fusion))
    inputs = {"rankings": members, "qrels": dev.qrels}
    return make_step(recipe, "search", f"weights-{system.name}", learn_weights, config, inputs)


def list_members(systems: Mapping[str, "System"], names: tuple[str, ...]) -> list[str]:
    """The systems of these names and all that they read, each after what it reads."""
    found: list[str] = []
    for name in names:
        system = systems[name]
        read = system.fuse or ((system.of,) if system.reranker else ())
        found += [one for one in (*list_members(systems, read), name) if one not in found]
    return found


def to_fusion(fusion: LearntFusion) -> Fusion:
    """The fusion alone, with the weights that are given."""
    return Fusion(kind=fusion.kind, k=fusion.k, weights=fusion.weights)


def resolve_hybrid(hybrid: Hybrid, fusion: Fusion, weights: Artifact | None) -> Hybrid:
    """The server's fusion as that of a system of the recipe, with the weights that were learnt for it."""
    taken = with_learnt(fusion, weights) if weights else fusion
    return hybrid.model_copy(update={"kind": taken.kind, "k": taken.k, "weights": taken.weights})


def find_hybrid(recipe: Recipe, systems: Mapping[str, "System"], search: SearchWith, root: Place) -> Hybrid | None:
    """The server's fusion of a recipe, with learnt weights. Raises StepError where these are not learnt yet."""
    hybrid = recipe.serve.hybrid
    if hybrid is None or not hybrid.like:
        return hybrid
    system = systems[hybrid.like]
    if system.fuse[1:] != (hybrid.system,):
        raise RecipeError(
            f"serve.hybrid.like = {hybrid.like!r} fuses {', '.join(system.fuse)}: expected two systems, of which the "
            f"second is serve.hybrid.system = {hybrid.system!r}"
        )
    step = plan_weights(recipe, systems, system, search)
    return resolve_hybrid(hybrid, to_fusion(system.fusion), step.artifact(root) if step else None)
