"""The training questions of a plan: those of the source, or questions that are written for its passages.

    docs → synth → keep → cap

A written question has the id of its passage, which is its positive. It is kept where the recipe's selector finds that
passage among its first ``synthesis.keep``.
"""

from cluster.step import Step
from pipelines.plan.steps import ingest, make_step
from pipelines.plan.systems import System, plan_index, plan_search
from pipelines.plan.translation import ALL, translate_docs, translate_queries
from pipelines.recipe import Recipe
from pipelines.synthesis.works import Cap, CapConfig, Keep, KeepConfig, Synthesise, SynthesiseConfig
from pipelines.tables import QUERIES


def plan_docs(recipe: Recipe, lang: str) -> Step:
    """The training passages in one language: the originals, or their translation."""
    original = ingest(recipe, "docs", recipe.source, recipe.languages.original, recipe.train_split)
    return original if lang == recipe.languages.original else translate_docs(recipe, original, lang)


def plan_queries(recipe: Recipe, lang: str) -> Step:
    """The training questions in one language: written or those of the source, and translated where translations are
    made."""
    original = recipe.languages.original
    if recipe.synthesis and lang == original:
        return _plan_synthesis(recipe, lang)
    if lang == original or (recipe.translate[0].kind == "parallel" and not recipe.synthesis):
        return ingest(recipe, "queries", recipe.source, lang, recipe.train_split)
    return translate_queries(recipe, plan_queries(recipe, original), lang)


def plan_selector(recipe: Recipe) -> tuple[System, Step]:
    """What selects passages of the training collection, and its index."""
    select = recipe.select
    system = System("select", select.index, model=select.encoder)
    return system, plan_index(recipe, system, {select.doc_lang: plan_docs(recipe, select.doc_lang)})


def _plan_synthesis(recipe: Recipe, lang: str) -> Step:
    """Questions that are written, and found again by the selector."""
    assert recipe.synthesis is not None
    synthesis, docs = recipe.synthesis, plan_docs(recipe, lang)
    chosen = {"all": docs} if synthesis.passages else {}
    config = SynthesiseConfig.of(synthesis, lang)
    written = make_step(
        recipe, "synthesise", f"synth-{lang}", Synthesise, config, {"docs": docs, **chosen},
        table=QUERIES, rows=("docs",), max_rejects=ALL,
    )  # fmt: skip
    system, index = plan_selector(recipe)
    options = recipe.select.search.model_copy(update={"k": synthesis.keep})
    found = plan_search(recipe, f"found-{lang}", system, index, written, recipe.select.doc_lang, options)
    kept = make_step(
        recipe, "synthesise", f"keep-{lang}", Keep, KeepConfig(lang=lang, keep=synthesis.keep),
        {"queries": written, "found": found, "all": written},
        table=QUERIES, rows=("queries", "found"), max_rejects=ALL,
    )  # fmt: skip
    if synthesis.most is None:
        return kept
    return make_step(
        recipe, "synthesise", f"cap-{lang}", Cap, CapConfig(most=synthesis.most), {"queries": kept, "all": kept},
        table=QUERIES, rows=("queries",), max_rejects=ALL,
    )  # fmt: skip
