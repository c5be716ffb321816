"""The steps that every part of a plan is built from: ingest, table steps, collections, vectors.

A model that is the student of another recipe becomes an input of the steps that use it, under ``models``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.component import Component
from cluster.errors import RecipeError
from cluster.step import Step
from pipelines.ingest import IngestConfig, IngestDocs, IngestPairs, IngestQrels, IngestQueries
from pipelines.models import pin, references
from pipelines.recipe import EvaluationSet, Recipe
from pipelines.sources import AnySource, PairSource
from pipelines.sources.files import TableName
from pipelines.sources.metadata import drop_fields
from pipelines.tables import DOCS, PAIRS, QRELS, QUERIES

INGEST = {
    "docs": (IngestDocs, DOCS),
    "queries": (IngestQueries, QUERIES),
    "qrels": (IngestQrels, QRELS),
    "pairs": (IngestPairs, PAIRS),
}


@dataclass(frozen=True)
class Collection:
    """Documents by language, and the questions asked of them with their judgements, where there are any.

    ``of`` names the evaluation set. A set that is asked in several languages has a collection for each.
    """

    docs: Mapping[str, Step]
    queries: Step | None
    qrels: Mapping[str, Step]
    of: str = ""


def make_step(
    recipe: Recipe, verb: str, name: str, work: Any, config: Component, inputs: Mapping[str, Any], **form: Any
) -> Step:
    """A step with the resources of its verb. ``form`` holds ``table`` and ``rows`` of table steps, and what is not as
    the recipe has it for all: ``resources``, ``max_rejects``."""
    form.setdefault("resources", getattr(recipe.resources, verb))
    students = {path: other_student(recipe, reference.recipe) for path, reference in references(config).items()}
    models = {"models": students} if students else {}
    if form.get("table"):
        form.setdefault("max_rejects", recipe.run.max_rejects)
    return Step(name, work, config, {**inputs, **models}, verb=verb, **form)


def other_student(recipe: Recipe, name: str) -> Step:
    """The training step of another recipe, which ``recipe`` names."""
    from pipelines.plan.training import plan_training  # the two need each other
    from pipelines.recipe import variant

    return plan_training(pin(variant(name, recipe))).train


def ingest(recipe: Recipe, table: TableName, source: AnySource, lang: str, split: str, **inputs: Step) -> Step:
    """A table of a source in one language, of documents their title and text alone: what is trained on has no use for
    more, and is the same whatever fields a recipe keeps."""
    return ingest_whole(recipe, table, drop_fields(source), lang, split, **inputs)


def ingest_whole(recipe: Recipe, table: TableName, source: AnySource, lang: str, split: str, **inputs: Step) -> Step:
    """As ``ingest``, with the fields that the source keeps of its documents."""
    work, contract = INGEST[table]
    size = recipe.run.queries_per_part if table == "queries" else recipe.run.rows_per_part
    config = IngestConfig.of(source, lang, split, size, table)
    return make_step(recipe, "ingest", f"{table}-{lang}", work, config, inputs, table=contract)


def config_of(step: Step) -> IngestConfig:
    """The config of an ingest step."""
    assert isinstance(step.config, IngestConfig)
    return step.config


def plan_collections(recipe: Recipe) -> dict[str, Collection]:
    """The collections of the evaluation sets: ``<set>``, or ``<set>-<language>`` for each language in which a set is
    asked, where it is asked in several.

    Raises:
        RecipeError: another set has the name of such a collection.
    """
    collections: dict[str, Collection] = {}
    for name, spec in recipe.evaluate.items():
        if isinstance(spec.source or recipe.source, PairSource):
            continue  # see pipelines.plan.pairs
        for lang in spec.asked_in(recipe.languages):
            label = f"{name}-{lang}" if spec.is_asked_in_several else name
            if label in collections or (label != name and label in recipe.evaluate):
                raise RecipeError(
                    f"evaluate.{name}.query_lang makes the set {label}, and [evaluate.{label}] is another: rename one"
                )
            collections[label] = plan_collection(recipe, spec, lang, name)
    return collections


def plan_collection(recipe: Recipe, spec: EvaluationSet, query_lang: str, name: str = "") -> Collection:
    """The documents, questions and judgements of an evaluation set, which is asked in one language."""
    source = spec.source or recipe.source
    codes = spec.read_docs_in(recipe.languages)
    docs = {lang: ingest_whole(recipe, "docs", source, lang, spec.docs_split) for lang in codes}
    queries = ingest(recipe, "queries", source, query_lang, spec.split)
    qrels = {
        lang: ingest(recipe, "qrels", source, lang, spec.split, docs=docs[lang], queries=queries) for lang in codes
    }
    return Collection(docs, queries, qrels, name)


def plan_documents(recipe: Recipe) -> Collection:
    """The documents of a recipe that is not measured: all that its source has in its languages."""
    return Collection(
        {lang: ingest_whole(recipe, "docs", recipe.source, lang, "all") for lang in recipe.languages.docs}, None, {}
    )
