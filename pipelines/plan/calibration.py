"""The step of the verb *calibration*: teachers of recipes, compared, and the student of the first beside its teacher.

    score (and score-0, score-1, … of an ensemble)  ─┐
    search-student-LANG ─ score-SET-LANG             ─┴─ calibration

The student is looked at on the first evaluation set: its teacher scores the documents that it found. Where the set is
of the recipe's own source, whose ids are the same in every language, the teacher reads them in its own languages, as in
training; elsewhere as they are.
"""

from collections.abc import Mapping

from cluster.errors import RecipeError
from cluster.step import Step
from pipelines.calibration import CalibrationConfig, calibrate
from pipelines.plan import STUDENT, Plan
from pipelines.plan.data import plan_scores
from pipelines.plan.steps import config_of, ingest
from pipelines.recipe import EvaluationSet, Recipe, Score
from pipelines.scoring import MergeScores
from pipelines.training.config import TrainConfig

AROUND = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the temperature of the training


def plan_calibration(plans: Mapping[str, Plan], found: Mapping[str, Step]) -> Step:
    """The comparison of the teachers of these recipes; ``found`` are rankings of the first one's student by language
    (``find_searches``), which may be none. What a training draws, and its temperature, are the first recipe's."""
    teachers = {label: step for name, plan in plans.items() for label, step in find_teachers(name, plan).items()}
    first = next(iter(plans.values()))
    compared = {"students": found, "dev": _plan_dev_scores(first, found)} if found else {}
    return Step("calibration", calibrate, _configure(first.recipe.train), {"scores": teachers, **compared})


def find_searches(plan: Plan) -> Mapping[str, Step]:
    """The student's rankings by language on the first evaluation set with questions; none where there is no such set,
    and where the recipe names no teacher that could score what the student found: its scores are a file."""
    if not isinstance(plan.recipe.score, Score) or not plan.evaluations:
        return {}
    rankings: Mapping[str, Step] = plan.evaluations[next(iter(plan.collections)), STUDENT].inputs["rankings"]
    return rankings


def find_teachers(name: str, plan: Plan) -> dict[str, Step]:
    """The teachers whose scores a recipe's training reads, and the members of ensembles, by the recipe's name."""
    data = plan.training.train.inputs["data"] if plan.training else {}
    teachers: dict[str, Step] = {}
    for of, tables in data.items():
        if step := tables.get("scores"):
            label = name if len(data) == 1 else f"{name} {of}"
            members = step.inputs["scores"] if step.work is MergeScores else {}
            teachers |= {label: step} | {f"{label} {number}": member for number, member in members.items()}
    if not teachers:
        raise RecipeError(
            f"recipe {name} has no teacher to calibrate: expected a training on scores (train.loss.kind = kl or mse)"
        )
    return teachers


def _configure(train: TrainConfig | None) -> CalibrationConfig:
    """What the training draws, and temperatures around its own."""
    loss = train.loss if train else None
    if train is None or loss is None or loss.kind not in ("kl", "mse"):
        return CalibrationConfig()
    used = loss.temperature / loss.alpha
    return CalibrationConfig(
        ways=train.ways,
        pool=train.pool,
        temperatures=tuple(used * factor for factor in AROUND),
        alpha=loss.alpha,
        temperature=loss.temperature,
    )


def _plan_dev_scores(plan: Plan, found: Mapping[str, Step]) -> dict[str, Step]:
    """The teacher's scores of what the student found, by language."""
    recipe = plan.recipe
    name, collection = next(iter(plan.collections.items()))
    spec = recipe.evaluate[collection.of]
    asked = collection.queries
    assert isinstance(recipe.score, Score)
    assert asked is not None
    score = recipe.score
    scores = {}
    for lang, rankings in found.items():
        if _has_ids_of_training(recipe, spec, score):
            queries = ingest(recipe, "queries", recipe.source, score.query_lang, spec.split)
            docs, teacher = ingest(recipe, "docs", recipe.source, score.doc_lang, spec.docs_split), score
        else:
            queries, docs = asked, collection.docs[lang]
            teacher = score.model_copy(update={"query_lang": config_of(asked).lang, "doc_lang": lang})
        inputs = {"rankings": rankings, "queries": queries, "docs": docs}
        depth = recipe.train.pool if recipe.train else None
        scores[lang] = plan_scores(recipe, teacher, inputs, f"score-{name}-{lang}", depth)
    return scores


def _has_ids_of_training(recipe: Recipe, spec: EvaluationSet, score: Score) -> bool:
    """Whether the set's questions and documents are in the source in the teacher's languages, under the same ids."""
    is_given = recipe.translate[0].kind == "parallel"
    return spec.source is None and (is_given or {score.query_lang, score.doc_lang} == {recipe.languages.original})
