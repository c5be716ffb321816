"""What a meta-learning reads of a recipe: sentence pairs, or questions, passages and judgements in the languages of its
tasks, and what is nearest to each question under the student that training begins with.

    nearest-questions-<language>-<language>     where sets are similar
    nearest-passages-<language>-<language>      where negatives are not random

Passages are native in each language where the recipe translates nothing, since a collection may have ids of its own in
each (LAReQA); else they are the translations of the originals, of which the judgements hold.
"""

from collections.abc import Mapping
from typing import Any, Literal

from cluster.errors import RecipeError
from cluster.step import Step
from pipelines.ingest import ABSENT
from pipelines.nearest import Nearest, NearestConfig
from pipelines.plan.pairs import plan_training_pairs
from pipelines.plan.questions import plan_docs, plan_queries
from pipelines.plan.steps import config_of, ingest, make_step
from pipelines.precision import resolve
from pipelines.recipe import Recipe
from pipelines.students.base import Task
from pipelines.tables import RANKINGS
from pipelines.training.meta.config import Meta

First = Literal["start", "best"]


def plan_meta_data(recipe: Recipe, meta: Meta, reads: str) -> dict[str, Any]:
    """The tables of a meta-learning by role and language; the questions in the main language first. ``reads`` is what
    the loss reads, labels or pairs.

    Raises:
        RecipeError: the recipe has a mixture or written questions, or a language of a task is not in the source.
    """
    if recipe.mix or recipe.synthesis:
        raise RecipeError(
            f"recipe {recipe.name}: train.meta draws its episodes from the recipe's own source: leave out "
            f"{'[mix]' if recipe.mix else '[synthesis]'}"
        )
    if reads == "pairs":
        return {"pairs": plan_training_pairs(recipe)}
    asked = dict.fromkeys([*recipe.languages.queries, *(part.query for spec in meta.specs for part in spec.parts)])
    read = recipe.languages.docs
    queries = {lang: plan_queries(recipe, lang) for lang in asked}
    is_native = recipe.translate[0].kind == "parallel"
    docs = {
        lang: ingest(recipe, "docs", recipe.source, lang, recipe.train_split) if is_native else plan_docs(recipe, lang)
        for lang in read
    }
    original = recipe.languages.original
    judged = {lang: (lang if is_native else original) for lang in read}
    of_original = queries.get(original) or plan_queries(recipe, next(iter(asked)))
    qrels = {}
    for lang, of in judged.items():
        documents = docs[lang] if is_native else plan_docs(recipe, of)
        qrels[lang] = ingest(
            recipe, "qrels", recipe.source, of, recipe.train_split, docs=documents, queries=of_original
        )
    _check_languages(meta, queries, docs, qrels)
    return {"queries": queries, "docs": docs, "qrels": qrels}


def _check_languages(
    meta: Meta, queries: Mapping[str, Step], docs: Mapping[str, Step], qrels: Mapping[str, Step]
) -> None:
    """Raise RecipeError where the source is here, and not in a language that a task names."""
    tables = [*queries.values(), *docs.values(), *qrels.values()]
    if all(_find_absent(step) for step in tables):
        return  # nothing is here: such a plan can be looked at
    for position, spec in enumerate(meta.specs):
        for part in spec.parts:
            steps = [queries[part.query], *(table[lang] for lang in part.docs for table in (docs, qrels))]
            if missing := next((why for step in steps if (why := _find_absent(step))), ""):
                raise RecipeError(
                    f"train.meta.tasks[{position}]: {str(spec)!r} names a language without data: {missing}"
                )


def _find_absent(step: Step) -> str:
    """Why a table cannot be read, of one that a source gives; "" where it can."""
    if step.verb != "ingest" or not (content := config_of(step).content).startswith(ABSENT):
        return ""
    return content.removeprefix(ABSENT)


def plan_nearest(
    recipe: Recipe, meta: Meta, data: Mapping[str, Any], start: Step, first: First
) -> dict[str, dict[str, Step]]:
    """The rankings that episodes are drawn by, by role and pair of languages; none where everything is random."""

    def rank(task: Task, lang: str, other: str, depth: int) -> Step:
        role = "passages" if task == "document" else "questions"
        precision = resolve(recipe.encode.precision, recipe.resources.encode.gpus)
        config = NearestConfig(depth=depth, role=task, first=first, precision=precision)
        inputs = {"queries": data["queries"][lang], "student": start}
        if task == "document":
            inputs |= {"texts": data["docs"][other], "qrels": data["qrels"][other]}
        else:
            inputs["texts"] = data["queries"][other]
        name = f"nearest-{role}-{lang}-{other}"
        return make_step(recipe, "encode", name, Nearest, config, inputs, table=RANKINGS, rows=("queries",))

    found: dict[str, dict[str, Step]] = {}
    if meta.sampling == "similar":
        pairs = {(spec.support.query, part.query) for spec in meta.specs for part in spec.queries}
        depth = meta.support + meta.queries * 2 + meta.neighbours  # those that are in other sets are passed over
        found["questions"] = {f"{a}-{b}": rank("query", a, b, depth) for a, b in sorted(pairs)}
    if meta.negatives != "random":
        pairs = {(part.query, lang) for spec in meta.specs for part in spec.parts for lang in part.docs}
        found["passages"] = {f"{a}-{b}": rank("document", a, b, meta.candidates) for a, b in sorted(pairs)}
    return found
