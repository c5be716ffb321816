"""Translation in a plan: stages of translators, and gates that judge what each of them made.

    docs-en → translate-zh → gate-zh → translate-zh-2 → gate-zh-2

A stage translates the rows that all stages before it left rejected, by the translator or by a gate, and passes the
others on. Gates are steps of their own, so that another threshold translates nothing again but what it rejects.
Rejected rows are counted against ``run.max_rejects`` by the last of these steps.
"""

from cluster.errors import RecipeError
from cluster.step import Step
from pipelines.gates import Gate, GateConfig
from pipelines.plan.steps import config_of, ingest, make_step
from pipelines.precision import with_precision
from pipelines.recipe import Recipe
from pipelines.translate import JoinTranslations, Translate, TranslateConfig
from pipelines.translators import Translator

ALL = 1.0  # of the rows may be rejected where a later stage translates them


def translate_docs(recipe: Recipe, docs: Step, lang: str) -> Step:
    """Plan the translation of a source's documents; where the source has translations, they are the first stage."""
    config = config_of(docs)
    is_given = recipe.translate[0].kind == "parallel"
    translations = ingest(recipe, "docs", config.source, lang, config.split) if is_given else None
    return _plan_stages(recipe, docs, (config.lang, lang), translations)


def translate_queries(recipe: Recipe, queries: Step, lang: str) -> Step:
    """Plan the translation of training queries by the recipe's translators."""
    return _plan_stages(recipe, queries, (recipe.languages.original, lang), None)


def _plan_stages(recipe: Recipe, original: Step, langs: tuple[str, str], translations: Step | None) -> Step:
    """The steps between two languages; returns the last.

    Raises:
        RecipeError: there is no translation to take, and no stage makes one.
    """
    assert original.table is not None
    source_lang, lang = langs
    role = original.table.name
    label = lang if role == "docs" else f"{role}-{lang}"
    before: Step | None = None
    stages = [(n, one) for n, one in enumerate(recipe.translate, 1) if translations or one.kind != "parallel"]
    if not stages:
        raise RecipeError(
            f"recipe {recipe.name}: [synthesis] writes questions in {source_lang!r}, and no stage of [translate] can "
            f"translate them into {lang!r}: add a stage (nmt, llm or openai), or ask in {source_lang!r} alone"
        )
    for number, translator in stages:
        name = label if number == 1 else f"{label}-{number}"
        is_last = number == len(recipe.translate)
        most = recipe.run.max_rejects if is_last else ALL
        rows = {role: original} | ({"before": before} if before else {})
        given = {"translations": translations} if translator.kind == "parallel" and translations else {}
        config = _configure(recipe, translator, source_lang, lang, number)
        translated = make_step(
            recipe, "translate", f"translate-{name}", JoinTranslations if given else Translate, config, rows | given,
            table=original.table, rows=tuple(rows), max_rejects=ALL if recipe.gates else most,
            resources=translator.resources or recipe.resources.translate,
        )  # fmt: skip
        before = _plan_gate(recipe, f"gate-{name}", original, translated, most) if recipe.gates else translated
    assert before is not None
    return before


def _configure(recipe: Recipe, translator: Translator, source_lang: str, lang: str, stage: int) -> TranslateConfig:
    gpus = (translator.resources or recipe.resources.translate).gpus
    translator = with_precision(translator, gpus)
    return TranslateConfig(source_lang=source_lang, target_lang=lang, translator=translator, stage=stage)


def _plan_gate(recipe: Recipe, name: str, original: Step, translated: Step, max_rejects: float) -> Step:
    """The translation with a reason in ``reject`` where it fails a gate."""
    assert recipe.gates is not None
    assert original.table is not None
    assert isinstance(translated.config, TranslateConfig)
    langs = {"source_lang": translated.config.source_lang, "target_lang": translated.config.target_lang}
    role = original.table.name
    config = GateConfig(gates=recipe.gates, **langs)
    return make_step(
        recipe, "gate", name, Gate, config, {role: original, "translation": translated},
        table=original.table, rows=(role, "translation"), max_rejects=max_rejects,
    )  # fmt: skip
