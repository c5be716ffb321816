"""What a training reads of one recipe: questions, passages by language, and a teacher's scores or labelled passages.

    scores    select → score            the teacher's, of the selection; or a file of published scores alone
    labels    select → (positives → score →) mine
    pairs     sentence pairs by language alone
    vectors   teach: the teacher's vectors of the original passages

What nothing reads is not planned: with labels a teacher is asked only where ``[mine]`` compares scores, or where it
says which negatives are false.
"""

from collections.abc import Mapping
from typing import Any

from cluster.errors import RecipeError
from cluster.step import Step
from pipelines.encode import Encode, EncodeConfig
from pipelines.ingest import ABSENT
from pipelines.mining import Mine, MineConfig, MineNegatives
from pipelines.models import Pretrained
from pipelines.plan.pairs import plan_training_pairs
from pipelines.plan.questions import plan_docs, plan_queries, plan_selector
from pipelines.plan.steps import config_of, ingest, make_step
from pipelines.plan.systems import plan_search
from pipelines.plan.translation import ALL
from pipelines.positives import PositivesConfig, WithPositives
from pipelines.precision import resolve, with_precision
from pipelines.recipe import EVERY_LANGUAGE, Recipe, Score
from pipelines.score_file import ReadScores, ScoreFile, ScoreFileConfig
from pipelines.scorers import DenseScorer, EnsembleScorer, Scorer
from pipelines.scoring import MergeConfig, MergeScores, ScoreConfig
from pipelines.scoring import Score as ScorePairs
from pipelines.tables import RANKINGS, VECTORS


def plan_data_set(recipe: Recipe, reads: str, reads_teacher: bool = False) -> dict[str, Any]:
    """The tables of a training that ``reads`` scores, labels or pairs, and maybe a teacher's scores beside labels."""
    if reads == "pairs":
        return {"pairs": plan_training_pairs(recipe)}
    score = recipe.score
    if reads == "vectors":
        docs = {lang: plan_docs(recipe, lang) for lang in recipe.languages.docs}
        return {"docs": docs, "vectors": {recipe.languages.original: _plan_teacher_vectors(recipe)}}
    data = {
        "queries": _plan_asked(recipe),
        "docs": {lang: plan_docs(recipe, lang) for lang in recipe.languages.docs},
    }
    if reads == "scores" and isinstance(score, ScoreFile):
        return {**data, "scores": _plan_score_file(recipe, score)}
    selection = _plan_selection(recipe)
    if reads == "scores":
        if score is None or isinstance(score, ScoreFile):
            raise RecipeError(f"recipe {recipe.name}: the loss reads the scores of a teacher, so add [score]")
        return {**data, "scores": plan_scores(recipe, score, _read_by_teacher(recipe, score, selection))}
    qrels = {} if recipe.synthesis else _plan_labels(recipe)
    rankings = _plan_negatives(recipe, recipe.mine, selection, qrels) if recipe.mine else selection
    data = {**data, "qrels": qrels, "rankings": rankings}
    if not reads_teacher:
        return data
    if not isinstance(score, Score):
        raise RecipeError(
            f"recipe {recipe.name}: train.loss.false_negatives.by = 'teacher' reads a teacher's scores, the relevant "
            "passages' among them: add [score] with a scorer"
        )
    return {**data, "scores": _plan_scores_with_positives(recipe, score, selection, qrels)}


def _plan_teacher_vectors(recipe: Recipe) -> Step:
    """The teacher's vectors of the training passages in the original language, each of its beginning."""
    scorer = recipe.score.scorer if isinstance(recipe.score, Score) else None
    if not isinstance(scorer, DenseScorer) or scorer.query_prompt or scorer.doc_prompt or scorer.max_length:
        raise RecipeError(
            f"recipe {recipe.name}: train.loss.kind = vectors reads the vectors of a teacher: set [score] to "
            "scorer.kind = dense, with model or recipe, and without prompts and max_length"
        )
    model = Pretrained(**{name: getattr(scorer, name) for name in Pretrained.model_fields})
    precision = resolve(scorer.precision, recipe.resources.score.gpus)
    config = EncodeConfig(role="docs", model=model, precision=precision, batch_tokens=scorer.batch_tokens)
    lang = recipe.languages.original
    inputs = {"rows": plan_docs(recipe, lang)}
    return make_step(recipe, "score", f"teach-{lang}", Encode, config, inputs, table=VECTORS, rows=("rows",))


def _plan_asked(recipe: Recipe) -> Step | dict[str, Step]:
    """The questions that the student is asked; by language, the main one first, where there are several."""
    langs = recipe.languages.queries
    if len(langs) == 1:
        return plan_queries(recipe, langs[0])
    return {lang: plan_queries(recipe, lang) for lang in langs}


def _plan_selection(recipe: Recipe) -> Step:
    """The k best passages per training question: a search of the training collection by the selector."""
    select = recipe.select
    if select.doc_lang == EVERY_LANGUAGE:
        raise RecipeError(
            f"recipe {recipe.name}: select.doc_lang = {EVERY_LANGUAGE!r}, but a teacher, [mine] and training find the "
            "passages of a selection by id, in one language. Set select.doc_lang to one, "
            f"{recipe.languages.original!r} say: the student reads the same passages in all of languages.docs"
        )
    system, index = plan_selector(recipe)
    options = select.search.model_copy(update={"k": select.k})
    queries = plan_queries(recipe, select.query_lang)
    return plan_search(recipe, "select", system, index, queries, select.doc_lang, options)


def plan_scores(
    recipe: Recipe, score: Score, inputs: Mapping[str, Any], name: str = "score", depth: int | None = None
) -> Step:
    """What the teacher thinks of ``rankings``, which is one of ``inputs`` beside the ``queries`` and ``docs`` that it
    reads; of an ensemble a step for each member, and one that merges. ``depth`` as in ``ScoreConfig``."""

    def plan_teacher(name: str, scorer: Scorer) -> Step:
        scorer = with_precision(scorer, recipe.resources.score.gpus)
        langs = {"query_lang": score.query_lang, "doc_lang": score.doc_lang}
        config = ScoreConfig(scorer=scorer, depth=depth, **langs)
        return make_step(recipe, "score", name, ScorePairs, config, inputs, table=RANKINGS, rows=("rankings",))

    ensemble = score.scorer
    if not isinstance(ensemble, EnsembleScorer):
        return plan_teacher(name, ensemble)
    members = {str(n): plan_teacher(f"{name}-{n}", member) for n, member in enumerate(ensemble.of)}
    merging = MergeConfig(normalise=ensemble.normalise, weights=ensemble.weights)
    rows = tuple(f"scores.{n}" for n in members)
    return make_step(recipe, "score", name, MergeScores, merging, {"scores": members}, table=RANKINGS, rows=rows)


def _read_by_teacher(recipe: Recipe, score: Score, rankings: Step) -> dict[str, Step]:
    """What a teacher reads of the training data: rankings of it, and the texts in the teacher's languages."""
    queries, docs = plan_queries(recipe, score.query_lang), plan_docs(recipe, score.doc_lang)
    return {"rankings": rankings, "queries": queries, "docs": docs}


def _plan_score_file(recipe: Recipe, file: ScoreFile) -> Step:
    """Published scores of the training questions: no selection and no teacher."""
    lang, split = recipe.languages.original, recipe.train_split
    inputs = {
        "queries": ingest(recipe, "queries", recipe.source, lang, split),
        "docs": ingest(recipe, "docs", recipe.source, lang, split),
    }
    config = ScoreFileConfig.of(file, recipe.run.queries_per_part)
    return make_step(recipe, "ingest", "score", ReadScores, config, inputs, table=RANKINGS)


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


def _plan_negatives(recipe: Recipe, mine: Mine, selection: Step, qrels: Mapping[str, Step]) -> Step:
    """The hard negatives of a selection. A teacher, where scores decide and there is one, scores the positives too."""
    lang = recipe.select.doc_lang
    labels = {"qrels": qrels} if qrels else {}
    inputs: dict[str, Any] = {"rankings": selection, "docs": plan_docs(recipe, lang), **labels}
    if isinstance(recipe.score, Score) and mine.reads_scores:
        inputs["scores"] = _plan_scores_with_positives(recipe, recipe.score, selection, qrels)
    rows = ("rankings", "scores") if "scores" in inputs else ("rankings",)
    config = MineConfig(mine=mine, doc_lang=lang, query_lang=recipe.select.query_lang)
    return make_step(
        recipe, "mine", "mine", MineNegatives, config, inputs, table=RANKINGS, rows=rows, max_rejects=ALL
    )  # fmt: skip


def _plan_scores_with_positives(recipe: Recipe, score: Score, selection: Step, qrels: Mapping[str, Step]) -> Step:
    """What the teacher thinks of a selection, as deep as negatives are mined, and of the relevant passages."""
    depth = recipe.mine.depth if recipe.mine else recipe.select.k
    config = PositivesConfig(depth=depth, query_lang=recipe.select.query_lang)
    inputs = {"rankings": selection} | ({"qrels": qrels} if qrels else {})
    complete = make_step(
        recipe, "mine", "positives", WithPositives, config, inputs,
        table=RANKINGS, rows=("rankings",), max_rejects=ALL,
    )  # fmt: skip
    return plan_scores(recipe, score, _read_by_teacher(recipe, score, complete))
