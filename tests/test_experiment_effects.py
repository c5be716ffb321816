"""Effects of a grid: known truth without noise, statsmodels with questions as factors, intervals that cover."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as formulas

from cluster.errors import RecipeError, StepError
from experiments import scores
from pipelines.experiment.claims import Axis, AxisClaim, Grid, GridPoint
from pipelines.experiment.effects import fit_grid

LANGUAGES = Axis.of("languages", [1, 2, 4, 7])
TASKS = Axis.of("tasks", [1, 3])
TEACHER = Axis.of("teacher", ["strong", "weak", "permuted"])
CLAIM = AxisClaim(larger="tasks", than="languages")


def grid(*axes, without=()):
    """A full grid, but for some variants."""
    points = [{}]
    for axis in axes:
        points = [{**point, axis.name: level} for point in points for level in axis.levels]
    named = [GridPoint(variant="-".join(levels.values()), levels=levels) for levels in points]
    return Grid(axes=axes, points=tuple(point for point in named if point.variant not in without))


def measure(grid, slopes, questions=40, noise=0.0, seed=0, shifts=None):
    """Scores of a question's own level, slopes per doubling, shifts of levels, and noise."""
    rng = np.random.default_rng(seed)
    own = rng.uniform(0.2, 0.6, questions)
    made = []
    for point in grid.points:
        value = own + rng.normal(0, noise, questions)
        for axis in grid.axes:
            level = axis.levels.index(point.levels[axis.name])
            value += slopes.get(axis.name, 0) * np.log2(axis.numbers[level]) if axis.numbers else shifts[level]
        made.append(scores(point.variant, value, "nDCG@10"))
    return made


def test_without_noise_the_truth_is_found():
    full = grid(LANGUAGES, TASKS, TEACHER)
    found = fit_grid(full, measure(full, {"languages": 0.01, "tasks": 0.03}, shifts=[0.0, -0.02, -0.07]), [CLAIM])
    languages, tasks, teacher = found.effects
    assert (languages.slope, languages.low, languages.high) == pytest.approx((0.01,) * 3)
    assert tasks.slope == pytest.approx(0.03)
    assert (teacher.slope, teacher.low) == (None, None)
    means = [level.mean for level in teacher.levels]
    assert np.diff(means) == pytest.approx([-0.02, -0.05])
    assert teacher.span == pytest.approx(0.07)
    assert [c.answer for c in found.contrasts] == ["holds"]
    assert (found.contrasts[0].difference, found.contrasts[0].basis) == (pytest.approx(0.02), "slope")
    assert found.fits[0].explained == pytest.approx(1)


@pytest.mark.parametrize("without", [(), ("1-1-strong", "7-3-weak", "4-1-permuted")])
def test_effects_are_those_of_a_regression_with_questions_as_factors(without):
    """Also where the grid has gaps, so that plain means of the levels would be wrong."""
    part = grid(LANGUAGES, TASKS, TEACHER, without=without)
    made = measure(part, {"languages": 0.02, "tasks": 0.01}, 12, noise=0.1, shifts=[0.0, 0.03, -0.05])
    rows = [
        {"value": value, "question": question, "teacher": point.levels["teacher"]}
        | {name: np.log2(float(point.levels[name])) for name in ("languages", "tasks")}
        for point, one in zip(part.points, made, strict=True)
        for question, (value,) in one.values.items()
    ]
    fitted = formulas.ols("value ~ C(question) + languages + tasks + C(teacher)", pd.DataFrame(rows)).fit()
    found = {effect.axis: effect for effect in fit_grid(part, made).effects}
    assert found["languages"].slope == pytest.approx(fitted.params["languages"])
    assert found["tasks"].slope == pytest.approx(fitted.params["tasks"])
    of_levels = formulas.ols("value ~ C(question) + C(languages) + C(tasks) + C(teacher)", pd.DataFrame(rows)).fit()
    means = {level.level: level.mean for level in found["teacher"].levels}
    for level in ("strong", "weak"):
        expected = of_levels.params.get(f"C(teacher)[T.{level}]")
        assert means[level] - means["permuted"] == pytest.approx(expected)
    if not without:
        rows = pd.DataFrame(rows)
        assert means["weak"] == pytest.approx(rows[rows.teacher == "weak"].value.mean())


def test_intervals_cover_the_truth():
    full, covered = grid(LANGUAGES, TASKS), []
    for seed in range(60):
        made = measure(full, {"languages": 0.01, "tasks": 0.01}, noise=0.1, seed=seed)
        covered += [effect.low < 0.01 < effect.high for effect in fit_grid(full, made).effects]
    assert (
        0.88 <= np.mean(covered) <= 0.98
    )  # of 120, at 95 %; a percentile interval is a little short with 40 questions


def test_contrasts_of_axes():
    full = grid(LANGUAGES, TASKS, TEACHER)
    claims = [CLAIM, AxisClaim(larger="languages", than="tasks"), AxisClaim(larger="teacher", than="tasks")]
    made = measure(full, {"languages": 0.01, "tasks": 0.05}, 60, noise=0.05, shifts=[0.0, -0.1, -0.3])
    holds, fails, span = fit_grid(full, made, claims).contrasts
    assert (holds.answer, fails.answer) == ("holds", "fails")
    assert (holds.difference, holds.low, holds.high) == pytest.approx((-fails.difference, -fails.high, -fails.low))
    assert holds.low < 0.04 < holds.high
    assert (span.basis, span.answer) == ("span", "holds")
    assert span.difference == pytest.approx(0.3 - 0.05 * np.log2(3), abs=0.03)
    equal = measure(full, {"languages": 0.02, "tasks": 0.02}, 60, noise=0.05, shifts=[0, 0, 0])
    assert fit_grid(full, equal, [CLAIM]).contrasts[0].answer == "cannot tell"


def test_axes_that_interact_are_not_explained():
    full = grid(TASKS, Axis.of("k", [1, 2]))
    values = {"1-1": 0.2, "1-2": 0.4, "3-1": 0.4, "3-2": 0.2}
    made = [scores(name, [value, value + 0.1]) for name, value in values.items()]
    assert fit_grid(full, made).fits[0].explained == pytest.approx(0)
    same = [scores(name, [0.2, 0.3]) for name in values]
    assert fit_grid(full, same).fits[0].explained is None


def test_pools_of_different_languages_have_no_effects():
    full = grid(TASKS, Axis.of("k", [1, 2]))
    langs = {"1-1": ("all", "de"), "1-2": ("all", "de", "zh"), "3-1": ("de", "all"), "3-2": ("all", "de")}
    made = [scores(name, [0.2, 0.3], lang=lang) for name, of in langs.items() for lang in of]
    assert [fit.lang for fit in fit_grid(full, made).fits] == ["de"]
    assert [fit.lang for fit in fit_grid(full, [one for one in made if one.lang != "zh"]).fits] == ["all", "de"]
    apart = [one for one in made if one.lang != ("zh" if one.variant == "1-1" else "de")]
    with pytest.raises(StepError, match=r"share a language and a measure, got 1-1 in all, de; 1-2 in all, zh; .*alike"):
        fit_grid(full, apart)


def test_errors_name_the_key():
    full = grid(LANGUAGES, TASKS)
    made = measure(full, {})
    with pytest.raises(
        RecipeError, match=r"effects\.larger: expected an axis of the grid \(languages, tasks\), got 'x'"
    ):
        fit_grid(full, made, [AxisClaim(larger="x", than="tasks")])
    with pytest.raises(RecipeError, match=r"grid: its 2 variants do not tell the axes languages, tasks apart"):
        fit_grid(full.model_copy(update={"points": (full.points[0], full.points[-1])}), made)
    wrong = GridPoint(variant="1-1", levels={"languages": "3", "tasks": "1"})
    with pytest.raises(RecipeError, match=r"grid\.languages: 1-1 has the level '3', expected one of"):
        fit_grid(full.model_copy(update={"points": (wrong, *full.points[1:])}), made)
    with pytest.raises(StepError, match=r"grid: expected scores of the variant 2-3 by nDCG@10 in all, got none"):
        fit_grid(full, [one for one in made if one.variant != "2-3"])
    with pytest.raises(StepError, match="1-1 and 7-3 were measured on different questions"):
        fit_grid(full, [*made[:-1], scores("7-3", [0.1], "nDCG@10")])
