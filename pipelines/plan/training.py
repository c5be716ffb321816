"""The training side of a plan: translated passages, selection, teacher, start, training.

The loss decides what is read (see ``pipelines.plan.data``): ``kl`` and ``mse`` a teacher's scores, ``infonce`` and
``triplet`` labels, ``cosine`` sentence pairs, ``vectors`` a teacher's vectors; ``[train.meta]`` labels in several
languages, or sentence pairs (see ``pipelines.plan.meta``).
A mixture reads the data of its members.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from cluster.component import canonical
from cluster.errors import RecipeError
from cluster.step import Step
from pipelines.models import pin
from pipelines.plan.data import plan_data_set
from pipelines.plan.meta import plan_meta_data, plan_nearest
from pipelines.plan.pairs import plan_pairs
from pipelines.plan.steps import make_step, other_student, plan_collection
from pipelines.recipe import EvaluationSet, Recipe, find_members
from pipelines.sources import PairSource
from pipelines.sources.metadata import drop_fields
from pipelines.training.config import Prompts, TrainConfig, TrainingRun
from pipelines.training.start import StartConfig, build_start
from pipelines.training.trainer import train

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
        is_of_pairs = recipe.train.loss.reads == "pairs"
        meta = recipe.train.meta.resolve(recipe.languages.docs, is_of_pairs=is_of_pairs) if recipe.train.meta else None
        train_config = recipe.train.model_copy(update={"meta": meta}).resolve_precision()
        data, mixture = _plan_data(recipe, train_config)
        start, first = _plan_start(recipe, train_config, data)
        if meta and meta.reads_nearest:
            data = {MAIN: data[MAIN] | plan_nearest(recipe, meta, data[MAIN], start, first)}
        config = TrainingRun(train=train_config, first=first, **mixture)
        inputs: dict[str, Any] = {"start": start, "data": data}
        if recipe.validate_split:
            inputs["dev"] = _plan_dev(recipe, recipe.validate_split)
        resources = recipe.train.resources
        step = Step("train", train, config, inputs, resources=resources, workers=resources.fewest_workers)
        return Training(step, start, first)


def _plan_dev(recipe: Recipe, split: str) -> dict[str, Any]:
    """What chooses the best checkpoint: questions, documents and judgements, or sentence pairs by language."""
    if isinstance(recipe.source, PairSource):
        return {"pairs": plan_pairs(recipe, recipe.source, split, recipe.languages.docs)}
    dev_set = EvaluationSet(split=split, source=drop_fields(recipe.source))
    dev = plan_collection(recipe, dev_set, recipe.languages.main_query)
    return {"queries": dev.queries, "docs": dev.docs, "qrels": dev.qrels}


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


def _plan_data(recipe: Recipe, train_config: TrainConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The data sets of a training, and how they are mixed: values of ``TrainingRun``."""
    loss = train_config.loss
    if train_config.meta:
        return {MAIN: plan_meta_data(recipe, train_config.meta, loss.reads)}, {}
    if not recipe.mix:
        return {MAIN: plan_data_set(recipe, loss.reads, loss.reads_teacher)}, {}
    members = find_members(recipe.mix, recipe)
    if train_config.examples and train_config.examples < len(members):
        raise RecipeError(
            f"train.examples = {train_config.examples} is less than a question for each of the {len(members)} members"
        )
    data = {}
    for name, (member, _) in members.items():
        try:
            data[name] = plan_data_set(pin(member), loss.reads, loss.reads_teacher)
        except RecipeError as error:
            raise RecipeError(f"mix.of.{name}: {error}") from error
    prompts = {name: Prompts(query=spec.query_prompt, document=spec.doc_prompt) for name, (_, spec) in members.items()}
    return data, {
        "shares": {name: spec.share for name, (_, spec) in members.items()},
        "prompts": {name: own for name, own in prompts.items() if own != Prompts()},
        "temperature": recipe.mix.temperature,
    }


def _plan_start(recipe: Recipe, config: TrainConfig, data: Mapping[str, Any]) -> tuple[Step, Literal["start", "best"]]:
    """The artifact that holds the student with which training begins, and which of its checkpoints that is."""
    if config.after:
        return _plan_after(recipe, config), "best"
    read = {name: _choose_texts(member) for name, member in data.items() if config.student.reads_corpus}
    start = StartConfig(student=config.student, seed=config.seed)
    return make_step(recipe, "start", "start", build_start, start, {"data": read} if read else {}), "start"


def _choose_texts(member: Mapping[str, Any]) -> dict[str, Any]:
    """What a student is built from of a data set: its documents, its questions in the main language, and, where there
    are others, their translations."""
    if "pairs" in member:
        return {"docs": member["pairs"]}
    if "queries" not in member:
        return {"docs": member["docs"]}
    asked, docs = member["queries"], member["docs"]
    if isinstance(asked, Step):
        return {"queries": asked, "docs": docs}
    (_, main), *others = asked.items()
    return {"queries": main, "docs": docs, "translated_queries": dict(others)}


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
