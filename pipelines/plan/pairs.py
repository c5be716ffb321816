"""Sentence pairs in a plan: what a training reads of them, and how each system is measured on an evaluation set.

    pairs-en, pairs-de, … → correlate-<set>-<system>

Nothing is indexed and nothing searched: a system is its encoder. Systems that have none (BM25), that rerank, or that
search translated documents, are left out.
"""

from collections.abc import Mapping
from typing import Any

from cluster.errors import RecipeError
from cluster.step import Step
from pipelines.correlate import CorrelateConfig, correlate_pairs
from pipelines.plan.steps import ingest, make_step
from pipelines.plan.systems import System, encoder_of
from pipelines.recipe import EvaluationSet, Recipe
from pipelines.recipe.languages import EACH_LANGUAGE
from pipelines.sources import AnySource, PairSource


def plan_pairs(recipe: Recipe, source: AnySource, split: str, langs: tuple[str, ...]) -> dict[str, Step]:
    """The pairs of a split by language."""
    return {lang: ingest(recipe, "pairs", source, lang, split) for lang in langs}


def plan_training_pairs(recipe: Recipe) -> dict[str, Step]:
    """The pairs that a training reads. Raises RecipeError where the source has none."""
    if not isinstance(recipe.source, PairSource):
        raise RecipeError(
            f"recipe {recipe.name}: train.loss.kind = cosine learns from pairs of sentences, and source.kind = "
            f"{recipe.source.kind} has none: set source.kind = sts, or another loss"
        )
    return plan_pairs(recipe, recipe.source, recipe.train_split, recipe.languages.docs)


def plan_pair_sets(recipe: Recipe) -> dict[str, dict[str, Step]]:
    """The evaluation sets of pairs: by name and language."""
    found = {}
    for name, spec in recipe.evaluate.items():
        source = spec.source or recipe.source
        if isinstance(source, PairSource):
            _check_set(name, spec)
            found[name] = plan_pairs(recipe, source, spec.split, spec.read_docs_in(recipe.languages))
    return found


def _check_set(name: str, spec: EvaluationSet) -> None:
    """Raise RecipeError for keys that mean nothing where sentences are compared."""
    if spec.query_lang not in (None, EACH_LANGUAGE):
        raise RecipeError(
            f"evaluate.{name}.query_lang = {spec.query_lang!r}: sentence pairs are compared in and across all of the "
            f"set's languages: leave the key out, or name the languages with evaluate.{name}.languages"
        )
    if spec.docs_split != "all" or spec.topics_in != "any":
        raise RecipeError(f"evaluate.{name}: docs_split and topics_in are of documents, and pairs have none: leave out")


def plan_correlations(
    recipe: Recipe, systems: Mapping[str, System], sets: Mapping[str, Mapping[str, Step]]
) -> dict[tuple[str, str], Step]:
    """The measures of each system that has an encoder on each set of pairs, by (set, system)."""
    encoders = [s for s in systems.values() if (s.model or s.student) and not s.docs_in and not s.reranker]
    return {
        (name, system.name): _plan_correlation(recipe, name, system, pairs)
        for name, pairs in sets.items()
        for system in encoders
    }


def _plan_correlation(recipe: Recipe, name: str, system: System, pairs: Mapping[str, Step]) -> Step:
    config = CorrelateConfig(name=name, **dict(encoder_of(recipe, system)))
    inputs: dict[str, Any] = {"pairs": pairs} | ({"student": system.student} if system.student else {})
    return make_step(recipe, "encode", f"correlate-{name}-{system.name}", correlate_pairs, config, inputs)
