"""The verb *calibration*: how sharp the teachers of recipes are, and how far they and the student agree."""

import json
from collections.abc import Sequence
from typing import Any

from cluster.artifact import MANIFEST
from cluster.errors import RecipeError
from cluster.step import Step
from cluster.storage import Place
from pipelines.plan import Plan
from pipelines.plan.calibration import find_searches, find_teachers, plan_calibration
from pipelines.recipe import Score
from pipelines.verbs import Report, load_plan, make


def calibrate(name: str, others: Sequence[str], with_student: bool, sets: Sequence[str], console: Any) -> Report:
    """Compare the teachers of a recipe and of others; and, where its student is trained and has searched, the student
    with its teacher. Makes what is missing of the teachers' scores.

    Raises:
        RecipeError: a recipe has no teacher, or another root.
        StepError: the teacher has scored fewer passages than the training draws.
    """
    loaded = {recipe: load_plan(recipe, sets) for recipe in [name, *others]}
    plan, root = loaded[name]
    named = {plan.recipe.name: plan for plan, _ in loaded.values()}  # shorter than a path
    plans = named if len(named) == len(loaded) else {recipe: plan for recipe, (plan, _) in loaded.items()}
    if elsewhere := [recipe for recipe, (_, other) in loaded.items() if other != root]:
        raise RecipeError(
            f"{', '.join(elsewhere)} and {name} have different roots, so that scores would be made twice: give all of "
            "them the same one with --set root=…"
        )
    found, note = _find_finished(plan, root) if with_student else ({}, "")
    for label, other in plans.items():  # with its own environments
        make(other, list(find_teachers(label, other).values()), root, console)
    step = plan_calibration(plans, found)
    make(plan, [step], root, console)
    from rich.console import Group

    from pipelines import report

    place = root / step.id
    measured = json.loads((place / "calibration.json").read())
    image = (place / "calibration.png").redacted
    page = Group(report.calibration_page(measured), *([note] if note else []), f"plotted in {image}")
    return Report({**measured, "png": image}, page)


def _find_finished(plan: Plan, root: Place) -> tuple[dict[str, Step], str]:
    """The student's searches that are finished, by language; and why there are none, where there are none."""
    searches = find_searches(plan)
    found = {lang: step for lang, step in searches.items() if (root / step.id / MANIFEST).exists()}
    if found:
        return found, ""
    if not isinstance(plan.recipe.score, Score):
        return (
            {},
            "no teacher is here to score what the student finds ([score] names none), so the two are not compared",
        )
    if not searches:
        return {}, "the recipe has no evaluation set, so student and teacher are not compared"
    return (
        {},
        f"the student has not searched yet; after `babelray run {plan.recipe.name}` it is compared with its teacher",
    )
