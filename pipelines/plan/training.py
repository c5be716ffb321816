"""The training side of a plan: translated passages, selection, teacher, start, training.

The loss decides what is read: ``kl`` and ``mse`` read a teacher's scores, ``infonce`` reads judgements and takes the
selection's other passages as negatives, so that no teacher is planned. A mixture reads the data of its members.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from cluster.component import canonical
from cluster.errors import RecipeError
from cluster.step import Step
from pipelines.ingest import ABSENT
from pipelines.models import pin
from pipelines.plan.steps import config_of, ingest, make_step, other_student, plan_collection, translate_docs
from pipelines.plan.systems import System, plan_index, plan_search
from pipelines.precision import with_precision
from pipelines.recipe import EvaluationSet, Recipe, find_members
from pipelines.scoring import Score, ScoreConfig
from pipelines.tables import QUERIES, RANKINGS
from pipelines.training.config import TrainConfig, TrainingRun
from pipelines.training.start import StartConfig, build_start
from pipelines.training.trainer import train
from pipelines.translate import Translate, TranslateConfig

MAIN = "main"  # the name of the only data set of a recipe without [mix]

_being_planned: ContextVar[tuple[str, ...]] = ContextVar("_being_planned", default=())


@dataclass(frozen=True)
class Training:
    """The training step, and the student with which it begins: the artifact and the name of its checkpoint there."""

    train: Step
    start: Step
    first: Literal["start", "best"]


def plan_training(recipe: Recipe) -> Training:
    """The steps that train a recipe's student.

    Raises:
        RecipeError: the recipe trains none, recipes name each other in a circle, ``train.after`` names a student of
            another architecture, or the loss reads judgements that the source does not have.
    """
    if recipe.train is None:
        raise RecipeError(f"recipe {recipe.name} trains no student: expected a recipe with [train]")
    with _no_circle(recipe.name):
        data, shares = _plan_data(recipe, recipe.train)
        start, first = _plan_start(recipe, recipe.train, data)
        config = TrainingRun(
            train=recipe.train, shares=shares, temperature=recipe.mix.temperature if recipe.mix else 1.0, first=first
        )
        inputs: dict[str, Any] = {"start": start, "data": data}
        if recipe.validate_split:
            dev = plan_collection(recipe, EvaluationSet(split=recipe.validate_split))
            inputs["dev"] = {"queries": dev.queries, "docs": dev.docs, "qrels": dev.qrels}
        resources = recipe.train.resources
        step = Step("train", train, config, inputs, resources=resources, workers=resources.fewest_workers)
        return Training(step, start, first)


@contextmanager
def _no_circle(name: str) -> Iterator[None]:
    """Plan a recipe's training; raise RecipeError where it is being planned already."""
    above = _being_planned.get()
    if name in above:
        raise RecipeError(f"recipes name each other in a circle: {' → '.join((*above, name))}")
    token = _being_planned.set((*above, name))
    try:
        yield
    finally:
        _being_planned.reset(token)


def _plan_data(recipe: Recipe, train_config: TrainConfig) -> tuple[dict[str, Any], dict[str, float]]:
    """The data sets of a training and how often each is drawn."""
    reads = train_config.loss.reads
    if not recipe.mix:
        return {MAIN: _plan_data_set(recipe, reads)}, {MAIN: 1.0}
    members = find_members(recipe.mix, recipe)
    data = {}
    for name, (member, _) in members.items():
        try:
            data[name] = _plan_data_set(pin(member), reads)
        except RecipeError as error:
            raise RecipeError(f"mix.of.{name}: {error}") from error
    return data, {name: share for name, (_, share) in members.items()}


def _plan_data_set(recipe: Recipe, reads: str) -> dict[str, Any]:
    """What a training reads of one recipe: questions, passages by language, and the teacher's scores or judgements."""
    docs = {lang: plan_docs(recipe, lang) for lang in _doc_languages(recipe, reads)}
    queries = {lang: plan_queries(recipe, lang) for lang in _query_languages(recipe, reads)}
    selection = _plan_selection(recipe, docs, queries)
    data = {
        "queries": queries[recipe.languages.query],
        "docs": {lang: docs[lang] for lang in recipe.languages.docs},
    }
    if reads == "scores":
        return {**data, "scores": _plan_scores(recipe, docs, queries, selection)}
    return {**data, "qrels": _plan_labels(recipe), "rankings": selection}


def _doc_languages(recipe: Recipe, reads: str) -> list[str]:
    """Those of the student, the selector and the teacher; they may differ (Translate-Distill §3.2)."""
    teacher = [recipe.score.doc_lang] if recipe.score and reads == "scores" else []
    return list(dict.fromkeys([*recipe.languages.docs, recipe.select.doc_lang, *teacher]))


def _query_languages(recipe: Recipe, reads: str) -> list[str]:
    teacher = [recipe.score.query_lang] if recipe.score and reads == "scores" else []
    return list(dict.fromkeys([recipe.languages.query, recipe.select.query_lang, *teacher]))


def plan_docs(recipe: Recipe, lang: str) -> Step:
    """The training passages in one language: the originals, or their translation."""
    original = ingest(recipe, "docs", recipe.source, recipe.languages.original, recipe.train_split)
    return original if lang == recipe.languages.original else translate_docs(recipe, original, lang)


def plan_queries(recipe: Recipe, lang: str) -> Step:
    """The training queries in one language: as the source has them, or translated where translations are made."""
    original = recipe.languages.original
    if lang == original or recipe.translate.kind == "parallel":
        return ingest(recipe, "queries", recipe.source, lang, recipe.train_split)
    translator = with_precision(recipe.translate, recipe.resources.translate.gpus)
    config = TranslateConfig(source_lang=original, target_lang=lang, translator=translator)
    inputs = {"queries": plan_queries(recipe, original)}
    return make_step(
        recipe, "translate", f"translate-queries-{lang}", Translate, config, inputs, table=QUERIES, rows=("queries",)
    )


def _plan_selection(recipe: Recipe, docs: Mapping[str, Step], queries: Mapping[str, Step]) -> Step:
    """The k best passages per training query: a search of the training collection by the selector."""
    select = recipe.select
    system = System("select", select.index, model=select.encoder)
    index = plan_index(recipe, system, {select.doc_lang: docs[select.doc_lang]})
    options = select.search.model_copy(update={"k": select.k})
    return plan_search(recipe, "select", system, index, queries[select.query_lang], select.doc_lang, options)


def _plan_scores(recipe: Recipe, docs: Mapping[str, Step], queries: Mapping[str, Step], selection: Step) -> Step:
    """What the teacher thinks of the selection."""
    score = recipe.score
    if score is None:
        raise RecipeError(f"recipe {recipe.name}: the loss reads the scores of a teacher, so add [score]")
    scorer = with_precision(score.scorer, recipe.resources.score.gpus)
    config = ScoreConfig(scorer=scorer, query_lang=score.query_lang, doc_lang=score.doc_lang)
    inputs = {"rankings": selection, "queries": queries[score.query_lang], "docs": docs[score.doc_lang]}
    return make_step(recipe, "score", "score", Score, config, inputs, table=RANKINGS, rows=("rankings",))


def _plan_labels(recipe: Recipe) -> dict[str, Step]:
    """The judgements of the training questions, by the language of the documents that they judge."""
    lang = recipe.languages.original
    docs = ingest(recipe, "docs", recipe.source, lang, recipe.train_split)
    queries = ingest(recipe, "queries", recipe.source, lang, recipe.train_split)
    qrels = ingest(recipe, "qrels", recipe.source, lang, recipe.train_split, docs=docs, queries=queries)
    absent = config_of(qrels).content.removeprefix(ABSENT)
    if absent != config_of(qrels).content and not config_of(docs).content.startswith(ABSENT):
        raise RecipeError(
            "train.loss.kind reads judgements, and the source has none for the training questions: "
            f"{absent}. Choose a loss that reads a teacher's scores (kl, mse)"
        )
    return {lang: qrels}


def _plan_start(recipe: Recipe, config: TrainConfig, data: Mapping[str, Any]) -> tuple[Step, Literal["start", "best"]]:
    """The artifact that holds the student with which training begins, and which of its checkpoints that is."""
    if config.after:
        return _plan_after(recipe, config), "best"
    read = {
        name: {"queries": member["queries"], "docs": member["docs"]}
        for name, member in data.items()
        if config.student.reads_corpus
    }
    start = StartConfig(student=config.student, seed=config.seed)
    return make_step(recipe, "start", "start", build_start, start, {"data": read} if read else {}), "start"


def _plan_after(recipe: Recipe, config: TrainConfig) -> Step:
    """The training of the recipe whose student goes on learning here. The two must be built alike."""
    before = other_student(recipe, config.after)
    assert isinstance(before.config, TrainingRun)
    theirs, ours = (canonical(student) for student in (before.config.train.student, config.student))
    for built in (theirs, ours):
        built.pop("base", None)  # where the other's weights came from
    if theirs != ours:
        raise RecipeError(
            f"train.after = {config.after!r}: its student is {theirs}, this recipe's is {ours}. Expected the same "
            "architecture: set train.student as there"
        )
    return before
